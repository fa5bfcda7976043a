"""Which blocks of a stage read which blocks of an earlier one."""

from __future__ import annotations

import numpy as np

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
    for axis, count in enumerate(task.grid.shape):
        size, read = task.grid.block_size[axis], upstream.grid.block_size[axis]
        low, high = task.context[axis], task.high_context[axis]
        spans = [
            slice(max(0, position * size - low) // read, -(-((position + 1) * size + high) // read))
            for position in range(count)
        ]
        along = np.moveaxis(blocks, axis, 0)
        blocks = np.moveaxis(np.array([along[span].any(axis=0) for span in spans]), 0, axis)
    return blocks
