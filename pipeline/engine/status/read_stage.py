"""The state of one stage, from its files alone: nothing is computed, no database is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import UserError
from ...run import Run
from ..blocks.stage import BlockTask, Stage, VolumeTask
from ..summary import describe_failure
from ..tracking.driver_lock import LockState
from ..tracking.driver_record import DriverRecord, TaskRecord
from ..tracking.failures import newest_failures, reason_to_end
from ..tracking.markers import marked_blocks
from ..tracking.progress import Progress, progress_of, read_record, record_time, what_changed
from ..tracking.temporary import used_shards
from ..tracking.worker_records import worker_records
from .model import DriverState, DriverStatus, FailureStatus, StageState, StageStatus, WorkerStatus
from .pace import History, Session, pace_of
from .read_workers import worker_statuses

SHOWN_FAILURES = 3
"""Failed blocks of a stage that are described."""


@dataclass(frozen=True)
class RunSnapshot:
    """What is known of a run at one moment, for all stages alike.

    Attributes:
        run: the run.
        time: in seconds since 1970.
        driver: who works on it.
        notice: what that one says it does; None if it has not said anything yet.
        lock: of the run directory.
        summary: the entries of the stages in `summary.json`.
        summed_up: whether these tell of the newest driver, which was through with its tasks.
        tasks: how many tasks share each of these entries.
        history: earlier counts, of whoever watches.
    """

    run: Run
    time: float
    driver: DriverStatus
    notice: DriverRecord | None
    lock: LockState
    summary: Mapping[str, Any]
    summed_up: bool
    tasks: Mapping[str, int]
    history: History

    def works_on(self, stage: Stage) -> bool:
        """Whether the driver at work has begun with a stage: a driver first takes the lock, then writes records."""
        if self.driver.state not in (DriverState.WORKS, DriverState.UNKNOWN):
            return False
        return record_time(stage) >= self.lock.since

    def notice_of(self, stage: Stage) -> TaskRecord | None:
        """What the driver says of a stage's output under its present key."""
        folder = str(stage.folder.relative_to(self.run.directory))
        tasks = self.notice.tasks if self.notice is not None else ()
        return next((task for task in tasks if (task.task, task.folder) == (stage.name, folder)), None)


@dataclass(frozen=True)
class StageReport:
    """A stage, with its workers and what failed."""

    status: StageStatus
    workers: Sequence[WorkerStatus] = ()
    failures: Sequence[FailureStatus] = ()


def stage_report(stage: Stage, snapshot: RunSnapshot, before: Sequence[StageStatus]) -> StageReport:
    """Everything about a stage.

    Args:
        stage: the stage.
        snapshot: the run.
        before: the stages upstream, among others.
    """
    status = StageStatus(stage.name, stage.stage, stage.script, stage.output, StageState.NOT_BEGUN)
    try:
        progress = progress_on_disk(stage)
        status = replace(status, blocks=1, voxels=stage.grid.box.size)
    except UserError as error:
        return StageReport(replace(status, note=str(error)))  # what it is made from is not there yet
    if progress is Progress.STALE:
        status = replace(status, state=StageState.STALE, note=what_changed(stage))
    elif progress is Progress.DONE:
        status = _with_costs(replace(status, state=StageState.DONE), snapshot)
    elif progress is Progress.STARTED:
        status = replace(status, state=StageState.RUNNING if snapshot.works_on(stage) else StageState.STOPPED)
    if isinstance(stage, BlockTask):
        return _task_report(stage, snapshot, status, before)
    if status.is_at_work:
        return StageReport(replace(status, began=record_time(stage), note="one computation in the driver"))
    return StageReport(replace(status, done=int(progress is Progress.DONE)))


def progress_on_disk(stage: Stage) -> Progress:
    """How far a stage is, without asking a database: for an output that is no array, the stage's record counts.

    Raises:
        UserError: what the stage depends on cannot be read.
    """
    if isinstance(stage, VolumeTask):
        return progress_of(stage)
    record = read_record(stage)
    if "key" not in record or stage.is_missing():
        return Progress.ABSENT
    if record["key"] != stage.key:
        return Progress.STALE
    return Progress.DONE if record["complete"] is True else Progress.STARTED


def _task_report(
    task: BlockTask, snapshot: RunSnapshot, status: StageStatus, before: Sequence[StageStatus]
) -> StageReport:
    empty, empty_is_known = task.known_empty()
    status = replace(status, blocks=len(task.grid), empty=int(empty.sum()))
    if status.state in (StageState.NOT_BEGUN, StageState.STALE):
        return StageReport(status)
    entries = worker_records(task)
    workers = worker_statuses(task.name, entries, status.state, snapshot.driver, snapshot.time)
    status = replace(
        status,
        done=_count_done(task, status, empty),
        running=sum(len(worker.blocks) for worker in workers if worker.state.is_present),
        peak_memory=max([status.peak_memory, *(entry.memory for entry in entries)]),
        longest_block=max((entry.longest for entry in entries), default=0.0),
    )
    if status.state is StageState.DONE:
        return StageReport(replace(status, note=_what_was_dropped(task)), workers)
    failed, newest = newest_failures(task, SHOWN_FAILURES)
    status = replace(status, failed=failed, note=reason_to_end(task) or "")
    if status.state is StageState.RUNNING:
        status = _at_work(status, task, snapshot, before)
        staffed = status.state is StageState.WAITING or any(worker.state.is_present for worker in workers)
        note = status.note or _why_nothing_runs(task, snapshot, staffed, empty_is_known)
        status = replace(status, note=note or _what_was_dropped(task))
    else:
        status = _at_rest(status, snapshot)
    logs = snapshot.run.logs / task.name
    failures = [
        FailureStatus(task.name, failure.block, failure.error, describe_failure(task, failure), str(logs))
        for failure in newest
    ]
    return StageReport(status, workers, failures)


def _what_was_dropped(task: BlockTask) -> str:
    """Of an array that is temporary, how much of it was used."""
    if not isinstance(task, VolumeTask) or not task.temporary_for or not task.drops.exists():
        return ""
    used, shards = int(used_shards(task, progress_on_disk).sum()), int((~task.empty_chunks).sum())
    return f"{used:,} of {shards:,} files dropped after use"


def _why_nothing_runs(task: BlockTask, snapshot: RunSnapshot, staffed: bool, empty_is_known: bool) -> str:
    """Of a stage that its driver has begun; `staffed`: it has workers, or needs none yet."""
    if not empty_is_known:
        return "looks for empty blocks"
    if snapshot.notice_of(task) is None:
        return "gets ready"
    if staffed:
        return ""
    queue = "; jobs may wait in the queue" if snapshot.driver.executor == "slurm" else ""
    return f"no worker is there now{queue}"


def _count_done(task: BlockTask, status: StageStatus, empty: np.ndarray) -> int:
    if status.state is StageState.DONE:
        return status.blocks - status.empty
    return int(np.count_nonzero(marked_blocks(task) & ~empty))


def _at_work(status: StageStatus, task: BlockTask, snapshot: RunSnapshot, before: Sequence[StageStatus]) -> StageStatus:
    """With the pace, and whether it waits for another stage."""
    names = {stage.name for stage in task.upstream}
    upstream = [stage for stage in before if stage.name in names and stage.is_at_work]
    if upstream and not status.running:
        status = replace(status, state=StageState.WAITING)
    notice = snapshot.notice_of(task)
    if snapshot.notice is None or notice is None:
        return status
    finished = status.done + status.empty
    recent = snapshot.history.blocks_per_second(task.name, snapshot.time, finished)
    session = Session(finished - notice.done_before, snapshot.time - snapshot.notice.began, recent)
    pace = pace_of(session, status.blocks - finished, _seconds_left(upstream), snapshot.time)
    return replace(status, began=snapshot.notice.began, pace=pace)


def _seconds_left(stages: Sequence[StageStatus]) -> float | None:
    """Until all of them are done; None if that cannot be told of one."""
    seconds = [stage.pace.seconds_left if stage.pace is not None else None for stage in stages]
    known = [value for value in seconds if value is not None]
    return max(known, default=0.0) if len(known) == len(seconds) else None


def _at_rest(status: StageStatus, snapshot: RunSnapshot) -> StageStatus:
    """Not done, and nobody works on it: whether something failed. Of workers that died, only the summary tells."""
    entry = snapshot.summary.get(status.stage, {}) if snapshot.summed_up else {}
    note = status.note or (entry.get("error") or "" if status.failed == 0 else "")
    failed = status.failed or min(entry.get("blocks_failed", 0), status.left)
    state = StageState.FAILED if failed or note else StageState.STOPPED
    return replace(status, state=state, failed=failed, note=note)


def _with_costs(status: StageStatus, snapshot: RunSnapshot) -> StageStatus:
    """With what the summary says of a stage that is done; of several tasks it only tells the sum."""
    if snapshot.tasks[status.stage] > 1:
        return status
    entry = snapshot.summary.get(status.stage, {})
    seconds, speed = entry.get("seconds"), entry.get("voxels_per_second", 0)
    voxels = min(status.voxels, round(speed * seconds)) if seconds else 0
    return replace(status, took=seconds, took_voxels=voxels, peak_memory=entry.get("peak_worker_memory", 0))
