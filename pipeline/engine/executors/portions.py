"""Temporary arrays, portion by portion: so many blocks are written, read by the stages that follow, and dropped.

Stages that run together share the workers, and the first one takes nearly all of them until it is through. For an array
that is dropped when it was read, that would be too late. So its blocks are given out in portions, in the order of the
grid; of the stages that follow, those blocks whose inputs lie in what was given out so far. A block that has failed is
not lost to the portions that come after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..blocks.readers import overlapping, read_by, readers
from ..blocks.stage import BlockTask, VolumeTask
from ..tracking.markers import proven_blocks

PORTIONS = 8
"""Of the blocks of a temporary array, so many at most: each costs the start of the workers."""

Held = Mapping[str, np.ndarray]
"""By name of a task, (z, y, x) bool over its block grid: the blocks that are not computed yet."""


def portions(tasks: Sequence[BlockTask]) -> Iterator[Held]:
    """What waits while each portion is computed; nothing while the last one is.

    Args:
        tasks: that run together, upstream tasks first.
    """
    task = temporary_one(tasks)
    if task is not None:
        left = np.flatnonzero(~(proven_blocks(task) | task.empty))
        size = portion_size(task)
        for first in range(size, len(left), size):
            yield held_back(tasks, task, left[first:])
    yield {}


def temporary_one(tasks: Sequence[BlockTask]) -> VolumeTask | None:
    """The task whose array is dropped while these run: all that read it are among them; None if there is none."""
    names = {task.name for task in tasks}
    found = [task for task in tasks if isinstance(task, VolumeTask) and task.temporary_for]
    return next((task for task in found if all(reader.name in names for reader in task.temporary_for)), None)


def portion_size(task: VolumeTask) -> int:
    """Blocks of a portion: at least one for each worker."""
    return max(task.workers, -(-len(task.grid) // PORTIONS))


def held_back(tasks: Sequence[BlockTask], task: VolumeTask, blocks: np.ndarray) -> Held:
    """What waits for some blocks: these, and whatever reads what waits.

    Args:
        tasks: that run together, upstream tasks first.
        task: one of them.
        blocks: (N,) indices of its blocks.
    """
    waiting = np.zeros(len(task.grid), dtype=bool)
    waiting[blocks] = True
    held = {task.name: waiting.reshape(tuple(task.grid.shape))}
    for follower in tasks:
        for upstream in follower.reads:
            if upstream.name in held and isinstance(upstream, BlockTask):
                waiting = readers(held[upstream.name], upstream, follower)
                held[follower.name] = held.get(follower.name, np.zeros_like(waiting)) | waiting
    return held


def peak_voxels(tasks: Sequence[BlockTask], task: VolumeTask) -> int:
    """The most voxels of a temporary array that are there at a time, if all begin with nothing and no block is empty.

    Args:
        tasks: that run together, upstream tasks first.
        task: the one that `temporary_one` gives.
    """
    size, blocks, grid = portion_size(task), np.arange(len(task.grid)), task.chunk_grid
    extents = [
        np.diff(np.minimum(np.arange(count + 1) * block, extent))
        for count, block, extent in zip(grid.shape, grid.block_size, grid.region.shape, strict=True)
    ]
    voxels = np.einsum("z,y,x->zyx", *extents)
    needed, most = np.ones(voxels.shape, dtype=bool), 0
    for first in range(0, len(blocks), size):
        held = held_back(tasks, task, blocks[first + size :])
        written = overlapping(~held[task.name], task.grid, grid)
        most = max(most, int(voxels[written & needed].sum()))
        needed = np.zeros_like(needed)
        for reader in task.temporary_for:
            needed |= read_by(held[reader.name], reader, grid)
    return most
