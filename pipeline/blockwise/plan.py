"""What a stage would do: blocks, voxels, bytes, and how much is computed for nothing in the context of blocks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from ..run import Run
from ..volumes import Box
from .grid import Block
from .predict import PredictTask
from .stage import BlockTask, Stage, VolumeTask
from .tracking import Progress, progress_of

logger = logging.getLogger(__name__)


def log_plan(run: Run, stages: Sequence[Stage]) -> None:
    """Check that the stages can run and say what they would do; nothing is written.

    Raises:
        UserError: as running them would.
    """
    for stage in stages:
        stage.check()
        logger.info(describe(run, stage))


def describe(run: Run, stage: Stage) -> str:
    """One line on a stage."""
    state = progress_of(stage)
    parts = [f"{stage.name}: {state.value}"]
    if state is Progress.STALE:
        parts.append("--overwrite would redo it")
    if isinstance(stage, BlockTask):
        grid = stage.grid
        parts.append(f"{len(grid)} blocks of {_times(grid.block_size)} voxels in {_times(grid.region.shape)}")
        parts.append(f"{context_overhead(stage):.2f} voxels read per voxel written")
    if isinstance(stage, VolumeTask):
        values = int(np.prod(stage.channels, dtype=np.int64)) * stage.grid.box.size
        size = values * np.dtype(stage.dtype).itemsize
        parts.append(f"{stage.dataset}: {values} values, {size / 1e6:.1f} MB before compression")
    return "; ".join(parts)


def context_overhead(task: BlockTask) -> float:
    """Voxels that all blocks read, per voxel that they write."""
    read_box = task.reader() if isinstance(task, PredictTask) else _box_with_context(task)
    return sum(read_box(block).size for block in task.grid) / task.grid.box.size


def _box_with_context(task: BlockTask) -> Callable[[Block], Box]:
    return lambda block: task.grid.with_context(block.box, task.context, task.context)


def _times(shape: Sequence[int]) -> str:
    return "×".join(str(extent) for extent in shape)
