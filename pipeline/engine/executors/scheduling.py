"""Tasks as daisy schedules them, in voxels of the segmented region, and what became of their blocks.

Tasks given together are chained: a block starts as soon as the upstream blocks that it reads are done. All tasks
together use at most `cluster.workers` workers at a time, and one more for each stage that waits for another. Success is
judged by the state of every task, block by block.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import daisy.v2 as daisy
import numpy as np
from funlib.geometry import Roi

from ...config import ClusterConfig
from ...errors import UserError, writing
from ..blocks.stage import BlockTask
from ..tracking.error_kinds import ErrorKind
from ..tracking.failures import BlockFailure, read_failures, reason_to_end
from ..tracking.markers import CHUNK, accept_any_unit, are_whole, marked_blocks, replace_markers
from ..tracking.progress import marker_folder
from ..tracking.worker_records import worker_records
from .portions import Held

MARKER_BYTES = 5
"""Of a block in daisy's arrays."""
SPARE_ROOM = 1 << 18
"""Bytes for what describes them, and for folders."""


@dataclass(frozen=True)
class Outcome:
    """What became of the blocks of one task.

    Attributes:
        task: the task.
        done, skipped, failed, orphaned: blocks; skipped ones were done before or are empty, orphaned ones were not
            computed since they need a failed one, or since the stage ended early.
        empty: the part of the skipped blocks that hold nothing.
        seconds: wall time; of tasks that ran together, each gets its share by the time of its blocks.
        voxels: written by the blocks done now.
        peak_memory: bytes, of the worker that needed most; 0 if nothing was done.
        error: the first error in one line, or why the stage ended early; None if there was none.
        failures: the failed blocks.
    """

    task: BlockTask
    done: int
    skipped: int
    failed: int
    orphaned: int
    empty: int
    seconds: float
    voxels: int
    peak_memory: int
    error: str | None
    failures: tuple[BlockFailure, ...] = ()

    @staticmethod
    def of_done(task: BlockTask) -> Outcome:
        """A task that was complete before."""
        return Outcome(task, 0, len(task.grid), 0, 0, int(task.empty.sum()), 0.0, 0, 0, None)

    @property
    def complete(self) -> bool:
        """Whether every block is done."""
        return self.done + self.skipped == len(self.task.grid)


@dataclass
class Cost:
    """Busy seconds of a task's blocks, and the peak memory in bytes."""

    seconds: float = 0.0
    memory: int = 0


def cost_of(task: BlockTask) -> Cost:
    """What the workers of a task measured."""
    records = worker_records(task)
    return Cost(sum(record.busy for record in records), max((record.memory for record in records), default=0))


def daisy_tasks_of(
    tasks: Sequence[BlockTask],
    functions: Sequence[Any],
    cluster: ClusterConfig,
    held: Held = MappingProxyType({}),
    returns: int = 0,
) -> dict[str, daisy.Task]:
    """What daisy is given, by name.

    Args:
        tasks: upstream tasks first.
        functions: for each task, what a block is given to, or what starts a worker.
        cluster: workers, retries, times.
        held: blocks that are not given out.
        returns: how often a block may come back untried besides its retries.
    """
    depths = _depths(tasks)
    return {
        task.name: _daisy_task(
            task, function, cluster, depths[task.name], returns, task.empty | held.get(task.name, np.False_)
        )
        for task, function in zip(tasks, functions, strict=True)
    }


def _depths(tasks: Sequence[BlockTask]) -> dict[str, int]:
    """How many of the tasks each one waits for, one after another; upstream tasks come first."""
    depths: dict[str, int] = {}
    for task in tasks:
        before = [depths[upstream.name] for upstream in task.upstream if upstream.name in depths]
        depths[task.name] = max(before, default=-1) + 1
    return depths


def slots(tasks: Sequence[BlockTask], cluster: ClusterConfig) -> dict[str, int]:
    """Places for workers, so that no task can be left without one by tasks that wait for it.

    daisy keeps workers that wait for blocks. When the last worker of an early task dies, workers of later tasks take
    its place and would wait for ever for the block that it had. So the tasks at depth d or deeper together get one
    place less than those at depth d - 1 or deeper, and there are as many places more than `cluster.workers` in all.
    """
    deepest = max(_depths(tasks).values())
    return {_slot(depth): cluster.workers + deepest - depth for depth in range(deepest + 1)}


def _slot(depth: int) -> str:
    return f"worker at depth {depth} or more"


def pipeline_of(tasks: Sequence[BlockTask], daisy_tasks: Mapping[str, daisy.Task]) -> daisy.Pipeline:
    """The tasks and what follows what."""
    edges: list[Any] = [  # of tasks; daisy's own type names a class that it does not export
        (daisy_tasks[upstream.name], daisy_tasks[task.name])
        for task in tasks
        for upstream in task.upstream
        if upstream.name in daisy_tasks
    ]
    return daisy.Pipeline(list(daisy_tasks.values()), edges)


def take_room_for_markers(task: BlockTask, cluster: ClusterConfig) -> None:
    """Have daisy create its files, unless they are there and whole, and give them room on the disk.

    daisy maps sparse files into memory; on a disk that has become full, setting a marker would kill the driver. And a
    disk that is full while daisy creates them would leave files that neither it nor anything else can read. So they are
    made in a folder beside, which takes their place when they are whole.

    Raises:
        UserError: there is no room.
    """
    folder = marker_folder(task)
    if are_whole(task):
        accept_any_unit(task)
        return
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    nothing = _daisy_task(task, _no_work, cluster, skip=np.ones(task.grid.shape, dtype=bool), markers=fresh)
    try:
        with writing(folder):
            _require_room(fresh, task)
            daisy.run_blockwise(nothing, multiprocessing=False, progress=False, summary=False)
            for path in fresh.glob(f"*/{CHUNK}"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        replace_markers(task, fresh)
    except RuntimeError as error:  # daisy's, for whatever the system refuses
        shutil.rmtree(fresh, ignore_errors=True)
        reason = " ".join(str(error).split()).rpartition(": ")[2]
        raise UserError(f"daisy's markers cannot be written: {reason}", str(folder)) from error
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _require_room(folder: Path, task: BlockTask) -> None:
    """Make sure that daisy's files fit on the disk, before daisy maps them into memory: there is no error there.

    Raises:
        OSError: they do not.
    """
    around = zip(task.grid.shape, task.context, task.grid.block_size, strict=True)
    entries = math.prod(blocks + 2 * -(-context // size) for blocks, context, size in around)
    folder.mkdir(parents=True)
    with (folder / "room").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, MARKER_BYTES * entries + SPARE_ROOM)
    (folder / "room").unlink()


def _no_work(block: daisy.Block) -> None:
    """For a run that only creates daisy's files."""


def _daisy_task(
    task: BlockTask,
    function: Any,
    cluster: ClusterConfig,
    depth: int = 0,
    returns: int = 0,
    skip: np.ndarray | None = None,
    markers: Path | None = None,
) -> daisy.Task:
    whole, first = (Roi(box.begin, box.shape) for box in (task.grid.box, task.grid.block(0).box))
    return daisy.Task(
        task.name,
        total_roi=whole.grow(task.context, task.context),
        read_roi=first.grow(task.context, task.context),
        write_roi=first,
        process_function=function,
        read_write_conflict=False,
        fit="shrink",
        timeout=cluster.block_timeout,
        max_retries=cluster.retries + returns,
        max_worker_restarts=cluster.worker_restarts,
        max_workers=task.workers,
        tracking_path=str(markers or marker_folder(task)),
        skip_mask=task.empty if skip is None else skip,
        requires={_slot(above): 1 for above in range(depth + 1)},
    )


def outcomes_of(
    daisy_tasks: Mapping[str, daisy.Task],
    tasks: Sequence[BlockTask],
    states: Mapping[str, daisy.TaskState],
    costs: Mapping[str, Cost],
    seconds: float,
) -> list[Outcome]:
    """What became of tasks that ran together for a number of seconds."""
    busy = sum(cost.seconds for cost in costs.values()) or 1.0
    return [
        _outcome(task, daisy_tasks[task.name], states[task.name], costs[task.name], seconds / busy) for task in tasks
    ]


def _outcome(task: BlockTask, daisy_task: daisy.Task, state: daisy.TaskState, cost: Cost, share: float) -> Outcome:
    done = state.completed_count - state.skipped_count
    complete = state.completed_count == len(task.grid)
    failures = () if complete else _failures(task, daisy_task, state)
    ended = None if complete else reason_to_end(task)
    failed = state.failed_count if ended is None else len(failures)
    return Outcome(
        task=task,
        done=done,
        skipped=state.skipped_count,
        failed=failed,
        orphaned=len(task.grid) - state.completed_count - failed,
        empty=int(task.empty.sum()),
        seconds=cost.seconds * share,
        voxels=round(task.grid.box.size * done / len(task.grid)),
        peak_memory=cost.memory if done else 0,
        error=None if complete else ended or _first_error(failures, state),
        failures=failures,
    )


def _failures(task: BlockTask, daisy_task: daisy.Task, state: daisy.TaskState) -> tuple[BlockFailure, ...]:
    """The failed blocks: those that left an error, and those whose worker died or hung without a word."""
    done = marked_blocks(task).ravel()
    told = {failure.block: failure for failure in read_failures(task) if not done[failure.block]}
    if reason_to_end(task) is not None or state.failed_count == len(told):
        return tuple(told.values())
    silent = {task.grid.index_of(block.write_roi.begin) for block in daisy_task.failed_blocks()} - told.keys()
    reason = f"its worker died, or it took longer than cluster.block_timeout ({state.timeout_secs} s)"
    return (*told.values(), *(BlockFailure(block, reason, "", ErrorKind.UNKNOWN) for block in sorted(silent)))


def _first_error(failures: Sequence[BlockFailure], state: daisy.TaskState) -> str | None:
    if failures:
        return f"block {failures[0].block}: {failures[0].error}"
    trace = state.first_worker_error or state.last_worker_error or state.abandon_reason
    return str(trace).strip().splitlines()[-1] if trace else None
