"""Stages that are computed block by block, and those of them that write an array; what they share with all other
stages is in `base.py`.
"""

from __future__ import annotations

import math
import shutil
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ...command_names import command_line, name_of
from ...config import Config
from ...errors import UserError
from ...volumes import ZERO, Box, RunVolume, create_volume, delete_volume, open_volume, volume_exists
from ...volumes.complete import cure_of_computed
from ...volumes.locations import Location
from ...volumes.storage_errors import not_unavailable
from .base import DriverStep as DriverStep
from .base import Stage as Stage
from .checksums import BlockRecords
from .empty_blocks import empty_blocks, known_empty_blocks
from .grid import Block, BlockGrid
from .storage import BlockOutput, UpstreamVolume, may_hold_something, require_metadata, require_whole

BlockFunction = Callable[[Block], None]
BlockReader = Callable[[Block], Box]


@dataclass(frozen=True)
class BlockTask(Stage):
    """A stage that is computed block by block, in any order, by any number of workers."""

    keeps_records: ClassVar[bool] = True
    """Whether `process` notes a checksum of each block in `records`, as `BlockOutput.write` does. A block counts as
    done when its record is there; of a stage that keeps none, daisy's markers have to be believed."""
    leaves_out_empty: ClassVar[bool] = True
    """Whether blocks that hold nothing in raw are not computed, and read as 0. Copies of arrays have them all, so
    that what is missing is lost."""
    grid_counts: ClassVar[str] = "voxels"
    """What the grid is made of, for messages."""
    can_be_looked_at: ClassVar[bool] = True
    """Whether the viewer shows the place of a block that failed; what is not imported yet, it cannot."""

    @property
    def context(self) -> Coordinate:
        """Voxels around a block, per side, in which it reads outputs of upstream stages; daisy plans with these."""
        return ZERO

    @property
    def high_context(self) -> Coordinate:
        """The same on the high side of each axis, where that is less."""
        return self.context

    @property
    def empty_is_an_answer(self) -> bool:
        """Whether the config lets a block give nothing although its input holds something."""
        return False

    @cached_property
    def empty(self) -> np.ndarray:
        """(z, y, x) bool over the block grid: blocks that are not computed, since there is nothing to see."""
        return empty_blocks(self.run, self.grid) if self.leaves_out_empty else np.zeros(self.grid.shape, dtype=bool)

    def known_empty(self) -> tuple[np.ndarray, bool]:
        """What is known of `empty` so far, and whether that is all; raw is not read."""
        return known_empty_blocks(self.run, self.grid) if self.leaves_out_empty else (self.empty, True)

    @property
    def workers(self) -> int:
        """Most workers that it may have at a time."""
        return self.run.config.cluster.workers_of(self.stage)

    def config_for_workers(self) -> Config:
        """The config that workers get: the driver's decisions in place of what the user left open."""
        return self.run.config

    @property
    def blocks_in_flight(self) -> int:
        """Blocks that a worker has under way at a time, each in a thread that calls what `process` gives."""
        return 1

    @property
    def cure(self) -> str:
        """What to do about an output that is lost or damaged."""
        return cure_of_computed(self.run.directory)

    def forget_blocks(self) -> None:
        """Remove all that is known of the blocks, so that every one is computed again."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def records(self) -> BlockRecords:
        """The checksums of the blocks."""
        return BlockRecords(self.folder / "records", len(self.grid))

    def reader(self) -> BlockReader:
        """A function that gives the voxels that a block reads; of raw, they may reach beyond the volume."""
        return lambda block: self.grid.with_context(block.box, self.context, self.high_context)

    @property
    def bytes_read_per_voxel(self) -> int:
        """Bytes per voxel of all arrays that a block reads."""
        return sum(stage.bytes_per_voxel for stage in self.reads if isinstance(stage, VolumeTask))

    def stored_checksums(self) -> Callable[[Block], int] | None:
        """For the audit: a function that reads what a block has stored, and gives the checksum that `records` should
        have of it; it raises a `FileNotFoundError` if that is gone, a `UserError` if it cannot be read. None if the
        audit has another way.
        """
        return None

    def plan_details(self) -> list[tuple[str, str]]:
        """What a plan says of this stage besides what it says of all: names and texts."""
        return []

    @abstractmethod
    def process(self) -> AbstractContextManager[BlockFunction]:
        """Open what a worker needs, and give the function that computes and stores one block."""


@dataclass(frozen=True)
class VolumeTask(BlockTask):
    """A block task that writes one array of a container of the run, whole shards per block."""

    checksum_by_shard: ClassVar[bool] = False
    """Whether the checksum of a block goes over its shards, one after another, and not over the block as one array."""

    can_be_temporary: ClassVar[bool] = False
    """Whether the config may say that shards are dropped after use."""

    @cached_property
    def temporary_for(self) -> tuple[BlockTask, ...]:
        """The tasks that read the array, if a shard is dropped when all of these have read it; none: it is kept."""
        return ()

    @property
    def drops(self) -> Path:
        """A file that is there if shards may have been dropped."""
        return self.folder / "drops"

    @property
    def container(self) -> Location:
        """The container that the array lies in."""
        return self.run.volume

    @property
    @abstractmethod
    def dataset(self) -> str:
        """Name of the array."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Extent of the axes before z, y, x."""
        return ()

    @property
    def dtype(self) -> str:
        """Type of the array."""
        return "uint64"

    @property
    def downsampling(self) -> Coordinate:
        """Voxels of the region along z, y, x that are one voxel of the array; blocks count voxels of the region."""
        return Coordinate(1, 1, 1)

    def stored_box(self, box: Box) -> Box:
        """The voxels of the array that a box of the region's voxels is stored in."""
        return box.downsampled(self.downsampling)

    @property
    def stored_grid(self) -> BlockGrid:
        """The array in its shards, in voxels of its own."""
        return self.chunk_grid.downsampled(self.downsampling)

    @property
    def bytes_per_voxel(self) -> int:
        """Bytes of all channels of a voxel."""
        return math.prod(self.channels) * np.dtype(self.dtype).itemsize

    @property
    @override
    def array_bytes(self) -> int:
        return self.stored_grid.box.size * self.bytes_per_voxel

    @property
    def empty_chunks(self) -> np.ndarray:
        """(z, y, x) bool over the chunk grid: chunks of blocks that are not computed."""
        chunks = self.empty
        for axis, (block, chunk) in enumerate(zip(self.grid.block_size, self.chunk_grid.block_size, strict=True)):
            chunks = chunks.repeat(-(-block // chunk), axis)  # a block that is cut at the end of the region, too
        z, y, x = self.chunk_grid.shape
        return chunks[:z, :y, :x]

    def attributes(self) -> dict[str, Any]:
        """Further attributes of the array."""
        return {}

    def input_holds(self) -> Callable[[Block], bool]:
        """A function that tells whether the input of a block holds anything, as far as the block's own voxels tell."""
        upstream = next(stage for stage in self.reads if isinstance(stage, VolumeTask))
        volume = upstream.open()
        return lambda block: may_hold_something(volume, upstream.stored_box(block.box))

    def count_ids(self, block: Block, data: np.ndarray) -> int:
        """Ids in a block of an array of ids that are numbered without gaps within the block; 0 of other arrays."""
        return 0

    @property
    @override
    def output(self) -> str:
        return str(self.container / self.dataset)

    @override
    def stored_key(self) -> str | None:
        if not volume_exists(self.container, self.dataset):
            return None
        try:
            return str(open_volume(self.container, self.dataset).array.attrs["key"])
        except (KeyError, UserError) as error:
            return None if not_unavailable(error) else ""  # its creation was interrupted

    @override
    def prepare(self) -> None:
        stored = self.stored_grid
        create_volume(
            self.container,
            self.dataset,
            (*self.channels, *stored.region.shape),
            self.dtype,
            voxel_size=stored.voxel_size,
            offset=stored.offset,
            chunks=stored.block_size,
            attributes={**self.attributes(), "key": self.key},
            storage_format=self.run.config.storage.format,
            downsampling=self.downsampling,
        )

    @override
    def drop(self) -> None:
        delete_volume(self.container, self.dataset)

    def open(self, mode: str = "r") -> RunVolume:
        """The array. Raises a `UserError` if there is none, or its metadata are not what this stage has written."""
        volume = open_volume(self.container, self.dataset, mode)
        cure = f"delete the dataset and run {name_of(self.script)} again"
        require_metadata(volume, self.stored_grid, self.channels, self.dtype, cure)
        return volume

    def open_complete(self) -> UpstreamVolume:
        """The array for later stages: every shard must be there and as written, except those of empty blocks."""
        cure = self.cure
        if self.drops.exists():
            again = command_line(self.script, self.run.directory / "config.json")
            cure = f"it was dropped after use or is lost; with predict.keep_affinities all, {again} makes it again"
        volume = self.open()
        compared = volume.array.format == 2 and self.grid.block_size == self.chunk_grid.block_size
        records = self.records.read() if compared else None
        return require_whole(volume, self.empty_chunks, cure, records)

    def open_output(self) -> BlockOutput:
        """The array for writing blocks."""
        return BlockOutput(self.container, self.dataset, self.records, self.checksum_by_shard)
