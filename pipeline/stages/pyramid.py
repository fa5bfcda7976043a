"""Coarser levels of raw, fragments and segmentations, for viewers: a stage per level, each made of the level before.

Blocks count voxels of the finest level, so that a block of one level reads what blocks of the level before have
written; a block is a shard of its level, whatever the extents are.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ..command_names import SCRIPTS
from ..engine.blocks.empty_blocks import all_empty
from ..engine.blocks.grid import Block, BlockGrid
from ..engine.blocks.stage import BlockFunction, Stage, VolumeTask
from ..engine.blocks.storage import open_raw, raw_identity
from ..errors import UserError
from ..run import Run
from ..volumes import Box, RunVolume, container_format
from ..volumes.pyramids import Method, Reader, downsampled_box, level_factors
from ..volumes.volume import Volume
from .fragments import FragmentsTask
from .segment import SegmentTask


@dataclass(frozen=True)
class PyramidTask(VolumeTask):
    """A level of the pyramid of an array, block by block.

    Attributes:
        level: 1 for the first below the array itself.
    """

    level: int

    version = 1
    together = "pyramid"
    method: ClassVar[Method] = "majority"
    """How several voxels become one."""

    @property
    @abstractmethod
    def image(self) -> str:
        """Name of the array that the pyramid is of."""

    @property
    @abstractmethod
    def finest(self) -> VolumeTask | None:
        """The stage that makes the array itself; None of raw."""

    @property
    @override
    def name(self) -> str:
        return f"{self.image.replace('/', '_')}_s{self.level}"

    @property
    @override
    def dataset(self) -> str:
        return f"{self.image}/s{self.level}"

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        before = self.before
        return () if before is None else (before,)

    @property
    def before(self) -> VolumeTask | None:
        """The stage that makes the level before; None if that is raw itself."""
        return replace(self, level=self.level - 1) if self.level > 1 else self.finest

    @cached_property
    def whole_grid(self) -> BlockGrid:
        """The finest level in blocks of `predict.block_size`."""
        return BlockGrid.of_run(self.run)

    @cached_property
    def factors(self) -> list[Coordinate]:
        """What every level is downsampled by."""
        return factors_of(self.run, self.whole_grid)

    @property
    @override
    def downsampling(self) -> Coordinate:
        return self.factors[self.level - 1]

    @property
    def step(self) -> Coordinate:
        """Voxels of the level before that are one voxel of this one."""
        return self.downsampling / (self.factors[self.level - 2] if self.level > 1 else Coordinate(1, 1, 1))

    @cached_property
    @override
    def chunk_grid(self) -> BlockGrid:
        return self.whole_grid.merged(self.downsampling)

    @cached_property
    @override
    def empty(self) -> np.ndarray:
        if self.finest is None:
            return super().empty
        return all_empty(self.finest.empty, self.whole_grid, self.grid)

    @override
    def known_empty(self) -> tuple[np.ndarray, bool]:
        if self.finest is None:
            return super().known_empty()
        known, are_all = self.finest.known_empty()
        return all_empty(known, self.whole_grid, self.grid), are_all

    @property
    @override
    def empty_is_an_answer(self) -> bool:
        return True  # few voxels that are not 0 vanish among many that are

    @override
    def settings(self) -> dict[str, Any]:
        return {"pyramid.downsampling": [list(factors) for factors in self.factors[: self.level]]}

    def open_before(self) -> tuple[Reader, Coordinate, np.dtype]:
        """A function that reads a box of the level before, which has all its shards; its shape and type."""
        assert self.before is not None, "raw has an answer of its own"
        volume: RunVolume = self.before.open_complete()
        return volume.read, volume.shape, volume.dtype

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        read, shape, dtype = self.open_before()
        output = self.open_output()

        def process_block(block: Block) -> None:
            box = self.stored_box(block.box)
            output.write(Block(block.index, box), downsampled_box(read, box, shape, self.step, self.method, dtype))

        yield process_block


@dataclass(frozen=True)
class RawPyramid(PyramidTask):
    """A level of raw: of the whole volume if the run has converted it, of the segmented region if it lies elsewhere."""

    stage = "raw_pyramid"
    script = SCRIPTS["predict"]
    leaves_out_empty = False
    image = "raw"
    finest = None
    method = "mean"

    @cached_property
    @override
    def whole_grid(self) -> BlockGrid:
        grid = BlockGrid.of_run(self.run)
        source = self.run.source(self.run.config.volumes.segment.source)
        if not source.is_converted("raw"):
            return grid
        raw = source.open_raw()
        block = Coordinate(min(b, e) for b, e in zip(self.run.config.predict.write_block, raw.shape, strict=True))
        return BlockGrid(raw.box, block, raw.voxel_size, raw.offset)

    @cached_property
    def _raw(self) -> Volume:
        return open_raw(self.run)

    @property
    @override
    def dtype(self) -> str:
        return str(self._raw.dtype)

    @property
    @override
    def bytes_read_per_voxel(self) -> int:
        return int(self._raw.dtype.itemsize)

    @override
    def settings(self) -> dict[str, Any]:
        region = self.whole_grid.region
        place = {"volumes.segment": [list(region.begin), list(region.end)], "raw": raw_identity(self.run)}
        return {**super().settings(), **place, "predict.block_size": list(self.run.config.predict.write_block)}

    @override
    def input_holds(self) -> Callable[[Block], bool]:
        return lambda block: bool(self._raw.read(self.grid.to_source(block.box)).any())

    @override
    def open_before(self) -> tuple[Reader, Coordinate, np.dtype]:
        if self.level > 1:
            return super().open_before()
        raw, grid = self._raw, self.whole_grid

        def read(box: Box) -> np.ndarray:
            return raw.read(grid.to_source(box))

        return read, grid.region.shape, raw.dtype


@dataclass(frozen=True)
class FragmentsPyramid(PyramidTask):
    """A level of the fragments."""

    stage = "fragments_pyramid"
    script = SCRIPTS["fragments"]
    image = "fragments"

    @property
    @override
    def finest(self) -> VolumeTask:
        return FragmentsTask(self.run)


@dataclass(frozen=True)
class SegmentationPyramid(PyramidTask):
    """A level of the segmentation at a threshold."""

    threshold: float

    stage = "segmentation_pyramid"
    script = SCRIPTS["segment"]

    @property
    @override
    def image(self) -> str:
        return self.finest.dataset

    @property
    @override
    def finest(self) -> SegmentTask:
        return SegmentTask(self.run, self.threshold)


def factors_of(run: Run, grid: BlockGrid) -> list[Coordinate]:
    """What the levels of a run's arrays are downsampled by; none in a run whose arrays can have no levels."""
    if (container_format(run.volume) or run.config.storage.format) == 2:
        return []
    smallest, images = run.config.pyramid.smallest, run.config.volumes.images
    return level_factors(grid.voxel_size, grid.region.shape, smallest, keep_sections=images)


def raw_pyramid(run: Run) -> list[PyramidTask]:
    """The levels of raw that the config asks for."""
    return _levels(RawPyramid(run, 1)) if run.config.pyramid.raw else []


def fragments_pyramid(run: Run) -> list[PyramidTask]:
    """The levels of the fragments that the config asks for."""
    return _levels(FragmentsPyramid(run, 1)) if run.config.pyramid.fragments else []


def segmentation_pyramid(run: Run, threshold: float) -> list[PyramidTask]:
    """The levels of a segmentation that the config asks for."""
    return _levels(SegmentationPyramid(run, 1, threshold)) if run.config.pyramid.segmentation else []


def _levels(first: PyramidTask) -> list[PyramidTask]:
    try:
        levels = range(1, len(first.factors) + 1)
    except UserError:  # there is no raw yet, or no such region, and the stages before say so
        return []
    return [replace(first, level=level) for level in levels]
