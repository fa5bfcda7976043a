"""Believe the records, not the port: rounds of daisy's server until every block that was reported has its record.

daisy's server marks a block as done when somebody says so. That somebody may be a stray worker of another run, or
anybody who found the port; and a message that daisy does not expect can end its server. Neither is a reason to stop:
what was not computed is taken back, the server starts anew, and computes what is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ...errors import UserError
from ..blocks.readers import readers
from ..blocks.stage import BlockTask
from ..tracking.failures import clear_failures, reason_to_end
from ..tracking.markers import marked_blocks, proven_blocks, unmark_blocks
from ..tracking.temporary import drop_used, make_lacking_again, temporary_tasks
from .portions import Held, portions
from .scheduling import Outcome

logger = logging.getLogger(__name__)

ROUNDS = 10
"""How often daisy's server is started for the same tasks before they are given up."""


class ServerDied(Exception):
    """daisy's server broke down while workers were at work; the text says how."""


def run_until_recorded(tasks: Sequence[BlockTask], run_round: Callable[[Held], list[Outcome]]) -> list[Outcome]:
    """Have tasks computed, again and again, until no block is marked without a record that proves it; portion by
    portion where an array is temporary, of which is dropped what nobody needs any more.

    Args:
        tasks: upstream tasks first.
        run_round: computes all blocks that are not marked, except those that it is given; may raise `ServerDied`.

    Returns:
        What became of the tasks in all rounds together, counted by what is on disk.

    Raises:
        UserError: after `ROUNDS` rounds there is still somebody who disturbs them.
    """
    take_back_unproven(tasks)
    _have_lacking_made(tasks)
    before = {task.name: proven_blocks(task) for task in tasks}
    rounds: list[list[Outcome]] = []
    for held in portions(tasks):
        _run_portion(tasks, partial(run_round, held), rounds)
        for task in temporary_tasks(tasks):
            drop_used(task)
        if any(reason_to_end(task) is not None for task in tasks):
            break
    return [_in_all(task, rounds, before[task.name]) for task in tasks]


def _have_lacking_made(tasks: Sequence[BlockTask]) -> None:
    """Take back blocks whose shards were dropped, or lost, and are needed by what is not done."""
    for task in temporary_tasks(tasks):
        make_lacking_again(task)


def _run_portion(
    tasks: Sequence[BlockTask], run_round: Callable[[], list[Outcome]], rounds: list[list[Outcome]]
) -> None:
    """Rounds until one goes undisturbed; they are added to those before."""
    for _ in range(ROUNDS):
        trouble = _round(run_round, rounds)
        taken_back = take_back_unproven(tasks)
        if taken_back:
            _have_lacking_made(tasks)
            trouble = f"{taken_back} blocks were reported as done that nobody of this run computed"
        if trouble is None or (rounds and any(reason_to_end(task) is not None for task in tasks)):
            return
        logger.warning("%s; daisy's server starts anew and does what is left", trouble)
        for task in tasks:
            clear_failures(task)
    raise UserError(
        f"{ROUNDS} times in a row, daisy's server was disturbed ({trouble}): something else sends messages to its "
        "port, perhaps workers of another run; find it, then run the same command again",
        str(tasks[0].run.directory),
    )


def take_back_unproven(tasks: Sequence[BlockTask]) -> int:
    """Take back the markers of blocks without a record, and of the blocks that read them; how many lacked one.

    Args:
        tasks: upstream tasks first.
    """
    taken: dict[str, np.ndarray] = {}
    lacking = 0
    for task in tasks:
        marked = marked_blocks(task) & ~task.empty
        blocks = marked & ~proven_blocks(task)
        lacking += int(blocks.sum())
        for upstream in task.reads:
            if isinstance(upstream, BlockTask) and upstream.name in taken:
                blocks |= readers(taken[upstream.name], upstream, task) & marked
        if blocks.any():
            unmark_blocks(task, blocks)
            taken[task.name] = blocks
    return lacking


def _round(run_round: Callable[[], list[Outcome]], rounds: list[list[Outcome]]) -> str | None:
    """One round, added to those before; what broke down, if anything did."""
    try:
        rounds.append(run_round())
    except ServerDied as death:
        return str(death)
    return None


def _in_all(task: BlockTask, rounds: Sequence[Sequence[Outcome]], before: np.ndarray) -> Outcome:
    """What became of a task: its last outcome, with blocks as they are on disk, and the time of all rounds."""
    outcomes = [next(outcome for outcome in outcomes if outcome.task is task) for outcomes in rounds]
    done, blocks = int((proven_blocks(task) & ~before).sum()), len(task.grid)
    skipped = int(before.sum())
    failed = min(outcomes[-1].failed, blocks - done - skipped)
    return replace(
        outcomes[-1],
        done=done,
        skipped=skipped,
        failed=failed,
        orphaned=blocks - done - skipped - failed,
        seconds=sum(outcome.seconds for outcome in outcomes),
        voxels=round(task.grid.box.size * done / blocks),
        peak_memory=max(outcome.peak_memory for outcome in outcomes),
    )
