"""The state of the workers of a stage."""

from __future__ import annotations

from collections.abc import Sequence

from ..tracking.worker_records import DONE, WorkerRecord
from .model import DriverStatus, StageState, WorkerState, WorkerStatus
from .read_driver import lives_here

SLOW_FACTOR = 3.0
"""A block that takes so many times as long as the longest one so far is worth a look,"""
SLOW_SECONDS = 10.0
"""unless that is a matter of seconds."""


def worker_statuses(
    stage: str, entries: Sequence[WorkerRecord], stage_state: StageState, driver: DriverStatus, time: float
) -> list[WorkerStatus]:
    """The workers of a stage.

    Args:
        stage: name of the task.
        entries: what the workers said.
        stage_state: as far as it depends on the driver alone.
        driver: who gives them blocks.
        time: now, in seconds since 1970.
    """
    longest = max((entry.longest for entry in entries), default=0.0)
    latest = {_place(entry): entry for entry in sorted(entries, key=lambda entry: entry.began)}
    statuses = []
    for entry in entries:
        state = _state_of(entry, stage_state, driver, longest, time)
        if latest[_place(entry)] is not entry and state is not WorkerState.DONE:
            state = WorkerState.REPLACED
        statuses.append(_status(stage, entry, state, time))
    return statuses


def _place(entry: WorkerRecord) -> str:
    """What an entry shares with the jobs that go on in its place: worker 3 becomes 3.1, then 3.2."""
    return entry.worker.split(".")[0]


def _status(stage: str, entry: WorkerRecord, state: WorkerState, time: float) -> WorkerStatus:
    blocks = tuple(entry.blocks) if state.is_present or state is WorkerState.DIED else ()
    has_left = state in (WorkerState.LEFT, WorkerState.REPLACED) and not entry.at_work
    return WorkerStatus(
        stage=stage,
        worker=entry.worker,
        host=entry.host,
        process=entry.process,
        job=entry.job,
        log=entry.log,
        state=state,
        reason=entry.state.removeprefix("left: ") if has_left else "",
        blocks=blocks,
        block=blocks[0] if blocks else None,
        block_seconds=max(0.0, time - entry.block_began) if blocks else 0.0,
        done=entry.done,
        failed=entry.failed,
        memory=entry.memory,
        heard=entry.heard,
    )


def _state_of(
    entry: WorkerRecord, stage_state: StageState, driver: DriverStatus, longest: float, time: float
) -> WorkerState:
    if not entry.at_work:
        return WorkerState.DONE if entry.state == DONE else WorkerState.LEFT
    if stage_state is StageState.DONE:
        return WorkerState.DONE
    if stage_state is not StageState.RUNNING and driver.ended is None:
        return WorkerState.ORPHANED  # workers end with a driver that is killed: it is the one to look at
    if lives_here(entry.host, entry.process, entry.began) is False:
        return WorkerState.DIED
    if stage_state is not StageState.RUNNING:
        return WorkerState.ORPHANED
    if entry.block is None:
        return WorkerState.IDLE
    limit = max(SLOW_FACTOR * longest, SLOW_SECONDS)
    return WorkerState.SLOW if longest and time - entry.block_began > limit else WorkerState.BUSY
