"""Import: raw, labels and mask of a source that cannot be read where they are become arrays of the run.

A block is so many shards of the array that the chunks of the source in it are decoded once: of a TIFF stack whole
sections, of an HDF5 file a few chunks. What does not fit into memory goes through a temporary file.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ..command_names import SCRIPTS
from ..config import Source
from ..datasets.file_source import FileOpener
from ..datasets.importing import open_kind, source_identity
from ..datasets.source import OpenDataset, SourceOpener
from ..engine.blocks.grid import Block, BlockGrid
from ..engine.blocks.process import WORKER, keep_freed_memory
from ..engine.blocks.stage import BlockFunction, VolumeTask
from ..run import Run
from ..volumes import Box, RunVolume, open_volume, volume_exists
from ..volumes.locations import Location
from ..volumes.sources import DATASETS

IN_MEMORY = 256 * 2**20
"""Bytes of a block that are kept in memory; a larger one goes through a temporary file, piece by piece."""
_BLOCK = "block_size"
"""Attribute of the array: voxels of a block along z, y, x."""


@dataclass(frozen=True)
class ConvertTask(VolumeTask):
    """One dataset of a source to an array of the run.

    Attributes:
        source: its name in `volumes.sources`.
        part: `raw`, `labels` or `mask`.
    """

    source: str
    part: str

    stage = "import"
    version = 1
    script = SCRIPTS["import"]
    checksum_by_shard = True
    leaves_out_empty = False
    can_be_looked_at = False

    @property
    @override
    def name(self) -> str:
        return f"import_{self.source}_{self.part}"

    @property
    @override
    def container(self) -> Location:
        return self.run.container(self.source)

    @property
    @override
    def dataset(self) -> str:
        return self.part

    @property
    @override
    def dtype(self) -> str:
        stored = self._stored
        return str(stored.dtype if stored is not None else self.layout.dtype)

    @property
    @override
    def empty_is_an_answer(self) -> bool:
        return True

    @override
    def input_holds(self) -> Callable[[Block], bool]:
        return lambda block: True

    @property
    def section(self) -> Source:
        """Of the config."""
        return self.run.config.volumes.sources[self.source]

    @property
    def opener(self) -> SourceOpener:
        """Opens the source."""
        return open_kind(self.source, self.section, self.run.config.targets.unlabelled_id)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells the source from others: its config section and the state of its data."""
        return source_identity(self.section, self.opener)

    @cached_property
    def layout(self) -> OpenDataset:
        """Shape, place and type of the dataset, which is not open any more.

        Raises:
            UserError: something about the source is missing or ambiguous.
        """
        with self.opener.open() as opened:
            return opened.datasets[self.part]

    def know(self, identity: dict[str, Any], layout: OpenDataset) -> None:
        """Take over what has been looked at before."""
        vars(self).update({"identity": identity, "layout": layout})

    @override
    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {f"volumes.sources.{self.source}": self.identity}
        if self.part == "labels":
            settings["targets.unlabelled_id"] = self.run.config.targets.unlabelled_id
        return settings

    @override
    def attributes(self) -> dict[str, Any]:
        return {_BLOCK: list(self.grid.block_size)}

    @cached_property
    def chunk_grid(self) -> BlockGrid:
        """The whole dataset in shards."""
        stored = self._stored
        if stored is not None:
            return _grid(stored.shape, stored.array.shards[-3:], stored.voxel_size, stored.offset)
        layout = self.layout
        return _grid(layout.shape, self.run.config.volumes.import_block, layout.voxel_size, layout.offset)

    @cached_property
    def grid(self) -> BlockGrid:
        """The whole dataset in blocks of one or several shards."""
        shards, stored = self.chunk_grid, self._stored
        if stored is not None:
            return _grid(stored.shape, stored.array.attrs[_BLOCK], stored.voxel_size, stored.offset)
        return shards.merged(shards_per_block(shards.block_size, self.layout.chunks, self.layout.shape))

    @property
    def _stored(self) -> RunVolume | None:
        """The array, if it was begun under the present key."""
        return open_volume(self.container, self.dataset) if self.stored_key() == self.key else None

    @property
    @override
    def bytes_read_per_voxel(self) -> int:
        return self.bytes_per_voxel

    @property
    @override
    def blocks_in_flight(self) -> int:
        """One is read while another is encoded, flushed and read back; files are read by one thread at a time."""
        return 2

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        if WORKER in os.environ:  # the process of a user has more to do than this
            keep_freed_memory()
        output = self.open_output()
        opener = self.opener
        if isinstance(opener, FileOpener):
            opener = replace(opener, compared=True)
        with opener.open() as opened:
            dataset, reading = opened.datasets[self.part], threading.Lock()

            def process_block(block: Block) -> None:
                with reading:
                    voxels = read_block(dataset, block.box)
                output.write(block, voxels)

            yield process_block


def conversions(run: Run, source: str) -> list[ConvertTask]:
    """The datasets of a source that the run has converted or begun to convert, whether the source is there or not.

    Arrays of versions that kept no records are none of them.
    """
    container, tasks = run.container(source), []
    for part in DATASETS:
        task = ConvertTask(run, source, part)
        key = task.stored_key() if volume_exists(container, part) else None
        if key:
            task.take_key(key)
            tasks.append(task)
    return tasks


def all_conversions(run: Run) -> list[ConvertTask]:
    """Those of all sources of a run."""
    return [task for source in run.config.volumes.sources for task in conversions(run, source)]


def shards_per_block(shard: Coordinate, chunks: Coordinate, shape: Coordinate) -> Coordinate:
    """How many shards along z, y, x make a block, so that few chunks of the source are decoded twice.

    Args:
        shard: voxels of a file of the array.
        chunks: voxels of the source that can only be decoded together.
        shape: voxels of the whole dataset.
    """
    return Coordinate(-(-min(chunk, extent) // size) for size, chunk, extent in zip(shard, chunks, shape, strict=True))


def read_block(dataset: OpenDataset, box: Box) -> np.ndarray:
    """The voxels of a block, (z, y, x): in memory, or if they are too many in a temporary file that has no name.

    Raises:
        OSError: there is no room for the file.
    """
    if box.size * dataset.dtype.itemsize <= IN_MEMORY:
        return dataset.read(box)
    voxels = _in_file(box.shape, dataset.dtype)
    depth = max(1, IN_MEMORY // (4 * dataset.dtype.itemsize * math.prod(box.shape[1:])))
    depth = max(dataset.chunks[0], depth // dataset.chunks[0] * dataset.chunks[0])
    for piece in box.split((depth, *box.shape[1:])):
        voxels[piece.relative_to(box).slices] = dataset.read(piece)
    return voxels


def _in_file(shape: Coordinate, dtype: np.dtype) -> np.ndarray:
    """An array in a file; its room is taken first, for a full disk would kill who writes to it."""
    with tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, math.prod(shape) * dtype.itemsize)
        return np.memmap(file, dtype, "r+", shape=tuple(shape))


def _grid(shape: Coordinate, block: Any, voxel_size: Any, offset: Any) -> BlockGrid:
    size = Coordinate(min(b, extent) for b, extent in zip(block, shape, strict=True))
    return BlockGrid(Box.of_shape(shape), size, voxel_size, offset)
