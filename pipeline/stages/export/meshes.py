"""Meshes of all segments above a size, in two stages: the surfaces in every block, then file by file whole meshes."""

from __future__ import annotations

import errno
import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ...command_names import SCRIPTS
from ...engine.blocks.checksums import array_checksum
from ...engine.blocks.grid import Block, BlockGrid
from ...engine.blocks.stage import BlockFunction, BlockTask, Stage
from ...engine.tracking.progress import read_record
from ...volumes import Box
from ...volumes.exports import read_file, read_json_at, write_file, write_json
from ...volumes.locations import Location
from ...volumes.sharded import Sharding
from ..fragments import FragmentsTask
from .multiresolution import mesh_info, packed
from .segments import SegmentedVolume, segments_of
from .surfaces import OpenPieces, PieceFile, cubes_of, joined, require_mesh_libraries, surfaces
from .volume import place_key

VOXELS_PER_FILE = 1 << 27
"""Of the region, per file of meshes, about."""
OPEN_PIECES = 256
"""Files of pieces that a worker keeps open."""


@dataclass(frozen=True)
class MeshPieces(BlockTask):
    """The surfaces of segments in every block, in files of the run.

    Attributes:
        threshold: of the segmentation.
        minimum_size: voxels that a segment has at least.
    """

    threshold: float
    minimum_size: int

    stage = "mesh_pieces"
    version = 1
    together = "mesh pieces"
    script = SCRIPTS["export"]

    @property
    @override
    def name(self) -> str:
        return f"mesh_pieces_{self.threshold:g}_{self.minimum_size}"

    @property
    @override
    def output(self) -> str:
        return str(self.pieces)

    @property
    def pieces(self) -> Path:
        """Folder of the files."""
        return self.folder / "pieces"

    def piece_file(self, block: int) -> PieceFile:
        """The file of a block."""
        return PieceFile(self.pieces / f"{block // 1000}" / f"{block}.pieces")

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return (segments_of(self.run, self.threshold),)

    @property
    @override
    def reads(self) -> tuple[Stage, ...]:
        return (FragmentsTask(self.run),)

    @override
    def settings(self) -> dict[str, Any]:
        return {"minimum_size": self.minimum_size}

    @override
    def check(self) -> None:
        require_mesh_libraries()

    @override
    def stored_key(self) -> str | None:
        key = read_record(self).get("key")
        return str(key) if key is not None and (self.run.tracking / self.name / str(key) / "pieces").is_dir() else None

    @override
    def prepare(self) -> None:
        self.pieces.mkdir(parents=True, exist_ok=True)

    @override
    def drop(self) -> None:
        """Nothing: the files lie where the markers do, and go with them."""

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        volume = SegmentedVolume(segments_of(self.run, self.threshold), self.minimum_size)

        def process_block(block: Block) -> None:
            around = cubes_of(block.box, self.grid.box)
            inside = around.intersect(self.grid.box)
            segments = np.zeros(around.shape, np.uint64)
            segments[inside.relative_to(around).slices] = volume.read(inside)
            found = surfaces(segments, around.begin) if segments.any() else {}
            content = self.piece_file(block.index).write(found)
            self.records.write(block.index, array_checksum(content), len(found))

        yield process_block


@dataclass(frozen=True)
class MeshShards(BlockTask):
    """The meshes in neuroglancer's format; a block of this stage is a file.

    Attributes:
        to: path or URL of the segmentation.
        threshold, minimum_size: as of `MeshPieces`.
    """

    to: str
    threshold: float
    minimum_size: int

    stage = "mesh_shards"
    version = 1
    together = "mesh shards"
    script = SCRIPTS["export"]

    @property
    @override
    def name(self) -> str:
        return f"mesh_shards_{place_key(self.to)}_{self.threshold:g}_{self.minimum_size}"

    @property
    def location(self) -> Location:
        """Folder of the meshes."""
        return Location.of(self.to).child("segmentation/mesh")

    @property
    @override
    def output(self) -> str:
        return self.location.name

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return (self.pieces,)

    @cached_property
    def pieces(self) -> MeshPieces:
        """The stage before."""
        return MeshPieces(self.run, self.threshold, self.minimum_size)

    @cached_property
    def sharding(self) -> Sharding:
        """How the meshes are divided into files."""
        return Sharding(math.ceil(math.log2(max(1, self.pieces.grid.box.size / VOXELS_PER_FILE))))

    @cached_property
    @override
    def grid(self) -> BlockGrid:
        files = Box.of_shape((1, 1, 2**self.sharding.shard_bits))
        return replace(self.pieces.grid, region=files, block_size=Coordinate(1, 1, 1))

    @cached_property
    @override
    def empty(self) -> np.ndarray:
        return np.zeros(self.grid.shape, dtype=bool)

    @override
    def settings(self) -> dict[str, Any]:
        grid = self.pieces.grid
        return {"minimum_size": self.minimum_size, "voxel_size": list(grid.voxel_size), "offset": list(grid.offset)}

    @override
    def check(self) -> None:
        require_mesh_libraries()

    @override
    def stored_key(self) -> str | None:
        key = read_record(self).get("key")
        return str(key) if key is not None and read_json_at(self.location, "info") is not None else None

    @override
    def prepare(self) -> None:
        grid = self.pieces.grid
        write_json(self.location, "info", mesh_info(grid.voxel_size, grid.offset, self.sharding.document))

    @override
    def drop(self) -> None:
        """Nothing: every file is replaced."""

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        table = segments_of(self.run, self.threshold).read()
        table = table[table["size"] >= self.minimum_size]
        files = self.sharding.shards_of(np.array(table["id"]))
        opened = functools.lru_cache(OPEN_PIECES)(lambda index: self.pieces.piece_file(index).open())

        def process_block(block: Block) -> None:
            meshes = {}
            for row in table[files == np.uint64(block.index)]:
                mesh = packed(joined(_pieces_of(row, self.pieces.grid, opened)))
                meshes[int(row["id"])] = mesh.fragments, mesh.manifest
            content, name = self.sharding.file_content(meshes), self.sharding.file_name(block.index)
            write_file(self.location, name, content)
            if read_file(self.location, name) != content:
                raise OSError(errno.EIO, "what was written reads back differently", self.location.name)
            self.records.write(block.index, array_checksum(np.frombuffer(content, np.uint8)), len(meshes))

        yield process_block


def _pieces_of(row: np.ndarray, grid: BlockGrid, opened: Any) -> Iterator[Any]:
    """The pieces of a segment: in the blocks of its box, and in those below, whose marching cubes reach into it."""
    box = Box(Coordinate(row["begin"].tolist()), Coordinate(row["end"].tolist())).grow((1, 1, 1), (0, 0, 0))
    for block in grid.blocks_in(box.intersect(grid.box)):
        pieces: OpenPieces = opened(block.index)
        piece = pieces.get(int(row["id"]))
        if piece is not None:
            yield piece
