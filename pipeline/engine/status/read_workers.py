"""How it stands with the workers of a stage."""

from __future__ import annotations

from collections.abc import Sequence

from ..tracking.worker_records import DONE, WorkerRecord
from .model import DriverStatus, Standing, State, WorkerStatus
from .read_driver import lives_here

SLOW_FACTOR = 3.0
"""A block that takes so many times as long as the longest one so far is worth a look,"""
SLOW_SECONDS = 10.0
"""unless that is a matter of seconds."""


def worker_statuses(
    stage: str, entries: Sequence[WorkerRecord], state: State, driver: DriverStatus, time: float
) -> list[WorkerStatus]:
    """The workers of a stage.

    Args:
        stage: name of the task.
        entries: what the workers said.
        state: of the stage, as far as it depends on the driver alone.
        driver: who gives them blocks.
        time: now, in seconds since 1970.
    """
    longest = max((entry.longest for entry in entries), default=0.0)
    latest = {_place(entry): entry for entry in sorted(entries, key=lambda entry: entry.began)}
    statuses = []
    for entry in entries:
        standing = _standing(entry, state, driver, longest, time)
        if latest[_place(entry)] is not entry and standing is not Standing.DONE:
            standing = Standing.REPLACED
        statuses.append(_status(stage, entry, standing, time))
    return statuses


def _place(entry: WorkerRecord) -> str:
    """What an entry shares with the jobs that go on in its place: worker 3 becomes 3.1, then 3.2."""
    return entry.worker.split(".")[0]


def _status(stage: str, entry: WorkerRecord, standing: Standing, time: float) -> WorkerStatus:
    blocks = tuple(entry.blocks) if standing.is_present or standing is Standing.DIED else ()
    has_left = standing in (Standing.LEFT, Standing.REPLACED) and not entry.at_work
    return WorkerStatus(
        stage=stage,
        worker=entry.worker,
        host=entry.host,
        process=entry.process,
        job=entry.job,
        log=entry.log,
        standing=standing,
        reason=entry.state.removeprefix("left: ") if has_left else "",
        blocks=blocks,
        block=blocks[0] if blocks else None,
        block_seconds=max(0.0, time - entry.block_began) if blocks else 0.0,
        done=entry.done,
        failed=entry.failed,
        memory=entry.memory,
        heard=entry.heard,
    )


def _standing(entry: WorkerRecord, state: State, driver: DriverStatus, longest: float, time: float) -> Standing:
    if not entry.at_work:
        return Standing.DONE if entry.state == DONE else Standing.LEFT
    if state is State.DONE:
        return Standing.DONE
    if state is not State.RUNNING and driver.ended is None:
        return Standing.ORPHANED  # workers end with a driver that is killed: it is the one to look at
    if lives_here(entry.host, entry.process, entry.began) is False:
        return Standing.DIED
    if state is not State.RUNNING:
        return Standing.ORPHANED
    if entry.block is None:
        return Standing.IDLE
    limit = max(SLOW_FACTOR * longest, SLOW_SECONDS)
    return Standing.SLOW if longest and time - entry.block_began > limit else Standing.BUSY
