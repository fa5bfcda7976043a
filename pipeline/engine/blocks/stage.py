"""What every stage says about itself: what determines its output, what it needs, and where the output lies.

A stage is either a `BlockTask` (many blocks, any number of workers) or a `DriverStep` (one computation on the whole
graph). Its `key` is a hash of everything that determines the output, keys of upstream stages included; the output
itself carries the key under which it was made, so an output is never taken for something else.
"""

from __future__ import annotations

import math
import shutil
from abc import ABC, abstractmethod
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
from ...config import Config, config_hash
from ...errors import UserError
from ...run import Run
from ...volumes import ZERO, Box, Volume, create_volume, delete_volume, open_volume, volume_exists
from ...volumes.locations import Location
from ...volumes.storage_errors import not_unavailable
from .checksums import BlockRecords
from .empty_blocks import empty_blocks, known_empty_blocks
from .grid import Block, BlockGrid
from .storage import BlockOutput, UpstreamVolume, require_metadata, require_whole

BlockFunction = Callable[[Block], None]
BlockReader = Callable[[Block], Box]


@dataclass(frozen=True)
class Stage(ABC):
    """A step of the way from raw to segmentation; `run` is what it belongs to."""

    run: Run

    stage: ClassVar[str]
    """Name in summaries."""
    version: ClassVar[int]
    """Raised whenever a change of the code changes the output."""
    script: ClassVar[str]
    """The script that runs the stage, for messages."""

    @property
    def name(self) -> str:
        """Name of this very task in file names; no colons."""
        return self.stage

    @property
    @abstractmethod
    def output(self) -> str:
        """Where the output lies, for messages."""

    @cached_property
    def upstream(self) -> tuple[Stage, ...]:
        """The stages whose outputs it reads."""
        return ()

    @property
    def reads(self) -> tuple[Stage, ...]:
        """The stages whose blocks a block of it reads."""
        return self.upstream

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What determines the output besides the upstream stages, as JSON values under dotted names."""

    def check(self) -> None:  # noqa: B027  most stages need no more than their upstream stages
        """Raise a `UserError` if the stage cannot run, before anything is written; not asked of one that is done."""

    @abstractmethod
    def stored_key(self) -> str | None:
        """The key under which the present output was begun; None if there is no output."""

    @abstractmethod
    def prepare(self) -> None:
        """Create the output, empty, and mark it with the key."""

    def is_intact(self) -> bool:
        """Whether what belongs to the output besides its blocks is there; quickly."""
        return True

    def is_missing(self) -> bool:
        """Whether there is certainly no output; quickly, and without asking a database."""
        return False

    def damage(self) -> str:
        """What is wrong with the output besides its blocks, for the audit; empty if nothing is."""
        return ""

    def depends_on_whole_upstream(self) -> bool:
        """Whether something besides the blocks is made from all upstream blocks, and made again with them."""
        return False

    def discard_whole(self) -> None:  # noqa: B027  most outputs have nothing besides their blocks
        """Delete what `depends_on_whole_upstream` speaks of; the next run makes it again."""

    def resume(self) -> None:  # noqa: B027  most outputs can be continued as they are
        """Mend an output that was begun under the same key, so that its blocks can go on."""

    @abstractmethod
    def drop(self) -> None:
        """Delete the output."""

    @cached_property
    def folder(self) -> Path:
        """Where everything lies that is known of the output under its key: markers, records, failures."""
        return self.run.tracking / self.name / self.key

    @cached_property
    def chunk_grid(self) -> BlockGrid:
        """The segmented region in blocks of `predict.block_size`: the shards of its arrays."""
        return BlockGrid.of_run(self.run)

    @cached_property
    def grid(self) -> BlockGrid:
        """The segmented region in the blocks that the stage computes, each of one chunk or of several."""
        return self.chunk_grid

    @cached_property
    def key(self) -> str:
        """Hash of everything that determines the output."""
        return config_hash(self.name, self.version, self.settings(), [stage.key for stage in self.upstream])

    def take_key(self, key: str) -> None:
        """Use a key that is known: workers take the driver's, since what it was made from may change meanwhile."""
        self.__dict__["key"] = key


@dataclass(frozen=True)
class DriverStep(Stage):
    """A stage that is one computation in the driving process."""

    @abstractmethod
    def execute(self) -> None:
        """Compute and store everything; interrupted, it starts anew."""


@dataclass(frozen=True)
class BlockTask(Stage):
    """A stage that is computed block by block, in any order, by any number of workers."""

    keeps_records: ClassVar[bool] = True
    """Whether `process` notes a checksum of each block in `records`, as `BlockOutput.write` does. A block counts as
    done when its record is there; of a stage that keeps none, daisy's markers have to be believed."""

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
        return empty_blocks(self.run, self.grid)

    def known_empty(self) -> tuple[np.ndarray, bool]:
        """What is known of `empty` so far, and whether that is all; raw is not read."""
        return known_empty_blocks(self.run, self.grid)

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
    def bytes_per_voxel(self) -> int:
        """Bytes of all channels of a voxel."""
        return math.prod(self.channels) * np.dtype(self.dtype).itemsize

    @property
    def empty_chunks(self) -> np.ndarray:
        """(z, y, x) bool over the chunk grid: chunks of blocks that are not computed."""
        return self.empty

    def attributes(self) -> dict[str, Any]:
        """Further attributes of the array."""
        return {}

    def input_holds(self) -> Callable[[Block], bool]:
        """A function that tells whether the input of a block holds anything, as far as the block's own voxels tell."""
        upstream = next(stage for stage in self.reads if isinstance(stage, VolumeTask)).open()

        def holds(block: Block) -> bool:
            try:
                return bool(upstream.read(block.box).any())
            except UserError as error:
                return not_unavailable(error)  # it held something that could be damaged

        return holds

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
        create_volume(
            self.container,
            self.dataset,
            (*self.channels, *self.grid.region.shape),
            self.dtype,
            voxel_size=self.grid.voxel_size,
            offset=self.grid.offset,
            chunks=self.chunk_grid.block_size,
            attributes={**self.attributes(), "key": self.key},
            storage_format=self.run.config.storage.format,
        )

    @override
    def drop(self) -> None:
        delete_volume(self.container, self.dataset)

    def open(self, mode: str = "r") -> Volume:
        """The array. Raises a `UserError` if there is none, or its metadata are not what this stage has written."""
        volume = open_volume(self.container, self.dataset, mode)
        cure = f"delete the dataset and run {name_of(self.script)} again"
        require_metadata(volume, self.chunk_grid, self.channels, self.dtype, cure)
        return volume

    def open_complete(self) -> UpstreamVolume:
        """The array for later stages: every shard must be there and as written, except those of empty blocks."""
        audit = command_line("audit.py", self.run.directory / "config.json", "--requeue")
        volume = self.open()
        compared = volume.array.format == 2 and self.grid.block_size == self.chunk_grid.block_size
        records = self.records.read() if compared else None
        return require_whole(volume, self.empty_chunks, f"{audit} has it made again", records)

    def open_output(self) -> BlockOutput:
        """The array for writing blocks."""
        return BlockOutput(self.container, self.dataset, self.records, self.checksum_by_shard)
