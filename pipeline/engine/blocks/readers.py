"""Which blocks of a stage read which blocks of an earlier one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .grid import BlockGrid
from .stage import BlockTask


def readers(blocks: np.ndarray, upstream: BlockTask, task: BlockTask) -> np.ndarray:
    """The blocks of a task that read one of some blocks of an earlier stage.

    Args:
        blocks: (z, y, x) bool over the block grid of the earlier stage.
        upstream: the earlier stage.
        task: the later one.

    Returns:
        (z, y, x) bool over the block grid of the task.
    """
    return _touching(blocks, upstream.grid, task.grid, task.context, task.high_context)


def read_by(blocks: np.ndarray, task: BlockTask, grid: BlockGrid) -> np.ndarray:
    """What some blocks of a task read of an array.

    Args:
        blocks: (z, y, x) bool over the block grid of the task.
        task: the task.
        grid: of the array.

    Returns:
        (z, y, x) bool over the grid of the array.
    """
    return _touching(blocks, task.grid, grid, task.high_context, task.context)


def overlapping(blocks: np.ndarray, grid: BlockGrid, other: BlockGrid) -> np.ndarray:
    """The blocks of another grid over the same region that share voxels with some blocks, (z, y, x) bool."""
    return _touching(blocks, grid, other, (0, 0, 0), (0, 0, 0))


def _touching(
    blocks: np.ndarray, grid: BlockGrid, other: BlockGrid, low: Sequence[int], high: Sequence[int]
) -> np.ndarray:
    """The blocks of another grid that share voxels with some blocks, once they have grown by voxels on both sides."""
    for axis, count in enumerate(other.shape):
        size, touched = other.block_size[axis], grid.block_size[axis]
        spans = [
            slice(max(0, position * size - low[axis]) // touched, -(-((position + 1) * size + high[axis]) // touched))
            for position in range(count)
        ]
        along = np.moveaxis(blocks, axis, 0)
        blocks = np.moveaxis(np.array([along[span].any(axis=0) for span in spans]), 0, axis)
    return blocks
