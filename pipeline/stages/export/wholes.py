"""Things made of whole segments, in two stages: pieces in every block (`pieces.py`), then whole ones, file by file.

What a whole one needs is found without an index: the blocks of the segment's box, and in each the pieces by id. The
memory that a worker needs is that of a block, then that of the largest segment, and 8 bytes for each segment that is
large enough.
"""

from __future__ import annotations

import errno
import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from funlib.geometry import Coordinate
from isal.isal_zlib import crc32
from typing_extensions import override

from ...command_names import SCRIPTS
from ...engine.blocks.grid import Block, BlockGrid
from ...engine.blocks.stage import BlockFunction, BlockTask, Stage
from ...engine.tracking.progress import recorded_key
from ...volumes import Box
from ...volumes.exports import as_json, exists_at, read_file, require_file, write_file
from ...volumes.locations import Location
from ...volumes.placement import beside_whole_voxels
from ...volumes.sharded import Sharding
from ...volumes.storage import delete_below
from .piece_files import OpenPieces, Piece
from .pieces import PiecesTask, require
from .place import place_key
from .segments import segments_of
from .volume import ExportTask
from .written import made_otherwise

VOXELS_PER_FILE = 1 << 24
"""Of the region, per file of whole things, about."""
OPEN_PIECES = 256
"""Files of pieces that a worker keeps open."""


class Packed(NamedTuple):
    """What is stored of a segment.

    Attributes:
        before: what lies before its value in a sharded file.
        value: what readers get by its id.
        own: its own file, if it has one.
    """

    before: bytes
    value: bytes
    own: bytes = b""


@dataclass(frozen=True)
class WholesTask(BlockTask):
    """What is made of all pieces of each segment, in neuroglancer's sharded format; a block of this stage is a file.

    Attributes:
        to: path or URL of the export.
        threshold, minimum_size: as of `PiecesTask`.
    """

    to: str
    threshold: float
    minimum_size: int

    script = SCRIPTS["export"]
    leaves_out_empty = False
    grid_counts = "files"
    place: ClassVar[str]
    """Folder in the segmentation."""
    own_folders: ClassVar[tuple[str, ...]] = ()
    """Folders of files that are a segment's alone, there, too."""
    pieces_class: ClassVar[type[PiecesTask]]
    """The stage before."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """What the folder's `info` says, besides how its files are divided."""

    @abstractmethod
    def packed(self, segment: int, pieces: Iterator[Piece]) -> Packed:
        """What is stored of a segment."""

    def own_file(self, segment: int) -> tuple[Location, str] | None:
        """Folder and name of a file that is the segment's alone, if there are such."""
        return None

    @property
    @override
    def name(self) -> str:
        return f"{self.stage}_{place_key(self.to)}"  # whatever they are made of: a place holds one kind of them

    @property
    def location(self) -> Location:
        """Folder of the files."""
        return Location.of(self.to).child("segmentation").child(self.place)

    @property
    @override
    def output(self) -> str:
        return self.location.name

    @cached_property
    def pieces(self) -> PiecesTask:
        """The stage before."""
        return self.pieces_class(self.run, self.threshold, self.minimum_size)

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        # they lie in the segmentation, which takes them along when another one is written in its place
        segmentation = ExportTask(self.run, self.to, "precomputed", "segmentation", self.threshold, 0)
        return (self.pieces, segmentation)

    @property
    @override
    def reads(self) -> tuple[Stage, ...]:
        return ()  # pieces that are made again are the same, and nothing is made of others

    @property
    def moved(self) -> tuple[float, ...]:
        """By how many nanometres along z, y, x the segmentation lies beside its place, and they with it."""
        return beside_whole_voxels(self.pieces.grid.offset, self.pieces.grid.voxel_size)

    @cached_property
    def sharding(self) -> Sharding:
        """How segments are divided into files."""
        return Sharding(math.ceil(math.log2(max(1, self.pieces.grid.box.size / VOXELS_PER_FILE))))

    @cached_property
    @override
    def grid(self) -> BlockGrid:
        files = Box.of_shape((1, 1, 2**self.sharding.shard_bits))
        return replace(self.pieces.grid, region=files, block_size=Coordinate(1, 1, 1))

    @override
    def plan_details(self) -> list[tuple[str, str]]:
        return [("write", f"{self.output}, of all segments of at least {self.minimum_size} voxels")]

    @override
    def settings(self) -> dict[str, Any]:
        grid = self.pieces.grid
        return {"minimum_size": self.minimum_size, "voxel_size": list(grid.voxel_size), "offset": list(grid.offset)}

    @override
    def check(self) -> None:
        require(*self.pieces.libraries)

    @override
    def lies_instead(self) -> str:
        least = made_otherwise(self, "minimum_size")
        if least is None:
            return ""
        held = f"{self.output} holds those of segments of at least {least} voxels"
        return f"{held}; name another place for {self.minimum_size}, or --overwrite"

    @override
    def stored_key(self) -> str | None:
        return recorded_key(self) if exists_at(self.location, "info") else None

    @cached_property
    def _info(self) -> bytes:
        return as_json({**self.info(), "sharding": self.sharding.document})

    @override
    def is_intact(self) -> bool:
        return read_file(self.location, "info") == self._info

    @override
    def damage(self) -> str:
        return "" if self.is_intact() else "info is missing or damaged"

    @override
    def prepare(self) -> None:
        write_file(self.location, "info", self._info)

    @override
    def resume(self) -> None:
        self.prepare()

    @override
    def drop(self) -> None:
        for folder in (self.place, *self.own_folders):
            delete_below(Location.of(self.to).child("segmentation").child(folder))

    def _segments_by_file(self) -> Callable[[Block], np.ndarray]:
        """A function that gives the rows of the segments in a file; of the table, it reads no others."""
        table = segments_of(self.run, self.threshold).read()
        rows = np.flatnonzero(table["size"] >= self.minimum_size)
        files = self.sharding.shards_of(table["id"][rows])
        order = np.argsort(files, kind="stable")
        rows, bounds = rows[order], np.searchsorted(files[order], np.arange(len(self.grid) + 1, dtype=np.uint64))
        return lambda block: np.asarray(table[rows[bounds[block.index] : bounds[block.index + 1]]])

    @override
    def stored_checksums(self) -> Callable[[Block], int]:
        return self._checksums_with(self._segments_by_file())

    def _checksums_with(self, segments_in: Callable[[Block], np.ndarray]) -> Callable[[Block], int]:
        def checksum_of(block: Block) -> int:
            contents = [require_file(self.location, self.sharding.file_name(block.index))]
            own = (self.own_file(int(row["id"])) for row in segments_in(block))
            contents += [require_file(*file) for file in own if file is not None]
            return functools.reduce(lambda before, content: int(crc32(content, before)), contents, 0)

        return checksum_of

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        segments_in, checksums = self._segments_by_file(), self.pieces.records.read().checksum
        opened = functools.lru_cache(OPEN_PIECES)(
            lambda index: self.pieces.piece_file(index).open(int(checksums[index]))
        )
        checksum_of = self._checksums_with(segments_in)

        def process_block(block: Block) -> None:
            packed = {
                int(row["id"]): self.packed(int(row["id"]), pieces_of_segment(row, self.pieces.grid, opened))
                for row in segments_in(block)
            }
            content = self.sharding.file_content(
                {segment: (each.before, each.value) for segment, each in packed.items()}
            )
            write_file(self.location, self.sharding.file_name(block.index), content)
            checksum = int(crc32(content))
            for segment, each in packed.items():
                file = self.own_file(segment)
                if file is not None:
                    write_file(*file, each.own)
                    checksum = int(crc32(each.own, checksum))
            if checksum_of(block) != checksum:
                raise OSError(errno.EIO, "what was written reads back differently", self.location.name)
            self.records.write(block.index, checksum, len(packed))

        yield process_block


def pieces_of_segment(row: np.ndarray, grid: BlockGrid, opened: Callable[[int], OpenPieces]) -> Iterator[Piece]:
    """The pieces of a segment: in the blocks of its box, and in those below, which reach into it by a voxel.

    Args:
        row: of the table of segments.
        grid: of the blocks.
        opened: gives the pieces of a block.
    """
    box = Box(Coordinate(row["begin"].tolist()), Coordinate(row["end"].tolist())).grow((1, 1, 1), (0, 0, 0))
    for block in grid.blocks_in(box.intersect(grid.box)):
        piece = opened(block.index).get(int(row["id"]))
        if piece is not None:
            yield piece
