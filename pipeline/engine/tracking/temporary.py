"""Arrays that are temporary: a shard is dropped when every block that reads it is done, and made again when needed.

What is needed follows from markers and records alone: a shard is needed while a block that reads it, with its context,
is not proven to be done. So there is no list of what was dropped that could be lost or wrong. A shard that is gone and
not needed was dropped; one that is gone and needed, for whatever reason, is computed again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import numpy as np

from ...errors import writing
from ...units import counted
from ..blocks.readers import overlapping, read_by
from ..blocks.stage import BlockTask, Stage, VolumeTask
from .markers import proven_blocks, unmark_blocks
from .progress import Progress, progress_of, write_record

logger = logging.getLogger(__name__)

ProgressOf = Callable[[Stage], Progress]


def temporary_tasks(stages: Iterable[Stage]) -> list[VolumeTask]:
    """Those of some stages whose shards are dropped, or were dropped before the config said to keep them."""
    return [
        stage
        for stage in stages
        if isinstance(stage, VolumeTask) and stage.can_be_temporary and (stage.temporary_for or stage.drops.exists())
    ]


def needed_shards(task: VolumeTask, progress: ProgressOf = progress_of) -> np.ndarray:
    """The shards that must be there: those that a block reads which is not done; of an array that is kept, all.

    Args:
        task: that writes the array.
        progress: tells how far a stage is.

    Returns:
        (z, y, x) bool over the shards.
    """
    worth_having: np.ndarray = ~task.empty_chunks
    if not task.temporary_for:
        return worth_having
    needed = np.zeros_like(worth_having)
    for reader in task.temporary_for:
        needed |= read_by(_to_be_done(reader, progress(reader)), reader, task.chunk_grid)
    return np.asarray(needed & worth_having)


def _to_be_done(reader: BlockTask, progress: Progress) -> np.ndarray:
    if progress is Progress.DONE:
        return np.zeros(reader.grid.shape, dtype=bool)
    if progress is Progress.STARTED:
        return ~proven_blocks(reader)
    return ~reader.empty  # what markers there may be are of another output


def may_be_gone(task: VolumeTask, progress: ProgressOf = progress_of) -> np.ndarray:
    """The shards that are no loss if they are gone: they were dropped, and are made again when they are needed.

    Args:
        task: that writes the array.
        progress: tells how far a stage is.

    Returns:
        (z, y, x) bool over the shards.
    """
    if task.temporary_for:
        return ~needed_shards(task, progress)
    return np.full(tuple(task.chunk_grid.shape), task.drops.exists())


def used_shards(task: VolumeTask, progress: ProgressOf = progress_of) -> np.ndarray:
    """The shards that were written and that no block needs any more, (z, y, x) bool."""
    return np.asarray(_done_shards(task) & ~needed_shards(task, progress))


def lacking_blocks(task: VolumeTask, progress: ProgressOf = progress_of) -> np.ndarray:
    """The blocks that are done, but of which a shard is gone that is needed.

    Args:
        task: one that is temporary.
        progress: tells how far a stage is.

    Returns:
        (z, y, x) bool over the block grid.
    """
    nothing = np.zeros(task.grid.shape, dtype=bool)
    if progress(task) not in (Progress.STARTED, Progress.DONE):
        return nothing
    needed = needed_shards(task, progress)
    if needed.any():
        needed &= _done_shards(task)
    if not needed.any():
        return nothing
    return overlapping(needed & ~task.open().array.present(), task.chunk_grid, task.grid)


def make_lacking_again(task: VolumeTask) -> int:
    """Take back the markers of blocks of which a needed shard is gone; how many. No driver but this may be at work."""
    lacking = lacking_blocks(task)
    if lacking.any():
        write_record(task, complete=False)
        unmark_blocks(task, lacking)
    return int(lacking.sum())


def drop_used(task: VolumeTask) -> int:
    """Delete the shards that no block needs any more; how many. No worker may be at work.

    Raises:
        UserError: the system refuses.
    """
    if not task.temporary_for or progress_of(task) not in (Progress.STARTED, Progress.DONE):
        return 0
    used = used_shards(task)
    if not used.any():
        return 0
    array = task.open().array
    unwanted = [tuple(map(int, position)) for position in np.argwhere(used & array.present())]
    if unwanted:
        with writing(task.drops):
            task.drops.touch()  # before the first is gone: who keeps everything from now on must know
        array.delete(unwanted)
        logger.info("%s: dropped %s that no block needs any more", task.dataset, counted(len(unwanted), "file"))
    return len(unwanted)


def forget_drops(task: VolumeTask) -> None:
    """Note that an array which is kept from now on is whole."""
    if not task.temporary_for:
        task.drops.unlink(missing_ok=True)


def _done_shards(task: VolumeTask) -> np.ndarray:
    """(z, y, x) bool over the shards: those of blocks that are done, except of empty ones."""
    done = overlapping(proven_blocks(task) & ~task.empty, task.grid, task.chunk_grid)
    return np.asarray(done & ~task.empty_chunks)
