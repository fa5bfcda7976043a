"""Run block tasks: in this process, or in worker processes on this machine. Both schedule with daisy.

Tasks given together are chained: a block starts as soon as the upstream blocks that it reads are done. All tasks
together use at most `cluster.workers` workers at a time, and one more for each stage that waits for another. Success is
judged by the state of every task, block by block.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import daisy.v2 as daisy
import numpy as np
from daisy import logging as daisy_logging

from ..config import ClusterConfig
from ..errors import UserError
from ..run import Run
from .failures import BlockFailure, read_failures, reason_to_end
from .stage import BlockTask
from .memory import peak_memory
from .roster import most_memory
from .tracking import marker_folder
from .trouble import Trouble
from .worker import OpenTask, attempt, thread_environment, work


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


class Executor(ABC):
    """A place where blocks are computed."""

    @abstractmethod
    def run(self, tasks: Sequence[BlockTask], cluster: ClusterConfig) -> list[Outcome]:
        """Compute all blocks that are not marked as done; upstream tasks come first."""


class LocalExecutor(Executor):
    """Worker processes on this machine."""

    def run(self, tasks: Sequence[BlockTask], cluster: ClusterConfig) -> list[Outcome]:
        functions = [functools.partial(work, task, os.getpid()) for task in tasks]
        daisy_tasks = _daisy_tasks(tasks, functions, cluster)
        server = daisy.Server()
        started = time.monotonic()
        with thread_environment(cluster.threads_per_worker):
            states = server.run_blockwise(
                _pipeline(tasks, daisy_tasks),
                resources=_slots(tasks, cluster),
                progress=sys.stderr.isatty(),
                host="127.0.0.1",
                summary=False,
            )
        costs = _costs(tasks, server.last_tracking_summary or {})
        return _outcomes(daisy_tasks, tasks, states, costs, time.monotonic() - started)


class SerialExecutor(Executor):
    """This process, one block after the other."""

    def run(self, tasks: Sequence[BlockTask], cluster: ClusterConfig) -> list[Outcome]:
        costs = {task.name: _Cost() for task in tasks}
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            functions = [_InProcess(task, stack, costs[task.name]) for task in tasks]
            daisy_tasks = _daisy_tasks(tasks, functions, cluster)
            states = daisy.run_blockwise(
                _pipeline(tasks, daisy_tasks),
                multiprocessing=False,
                progress=False,
                return_states=True,
                summary=False,
            )
        return _outcomes(daisy_tasks, tasks, states, costs, time.monotonic() - started)


EXECUTORS: dict[str, type[Executor]] = {"serial": SerialExecutor, "local": LocalExecutor}


def run_blocks(run: Run, tasks: Sequence[BlockTask]) -> list[Outcome]:
    """Compute the blocks of tasks where the config says, upstream tasks first.

    Raises:
        UserError: the log directory cannot be written.
    """
    if not tasks:
        return []
    try:
        run.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", str(run.logs)) from error
    daisy_logging.set_log_basedir(run.logs)
    for task in tasks:
        _take_room_for_markers(task, run.config.cluster)
    return EXECUTORS[run.config.cluster.executor]().run(tasks, run.config.cluster)


@dataclass
class _Cost:
    """Busy seconds of a task's blocks, and the peak memory in bytes."""

    seconds: float = 0.0
    memory: int = 0


class _InProcess:
    """The block function of the serial executor: opens the task at its first block, and measures."""

    def __init__(self, task: BlockTask, stack: contextlib.ExitStack, cost: _Cost) -> None:
        self._task, self._cost = task, cost
        self._opened = stack.enter_context(contextlib.closing(OpenTask(task)))
        self.__name__ = task.name

    def __call__(self, block: daisy.Block) -> None:
        started = time.monotonic()
        if not attempt(self._opened, self._task.grid.block_of(block.write_roi)):
            block.status = daisy.BlockStatus.FAILED
        self._cost.seconds += time.monotonic() - started
        self._cost.memory = peak_memory()


def _costs(tasks: Sequence[BlockTask], summary: dict[str, Any]) -> dict[str, _Cost]:
    """What daisy and the workers measured."""
    measured = summary.get("per_task", {})
    return {
        task.name: _Cost(float(measured.get(task.name, {}).get("total_block_secs", 0.0)), most_memory(task))
        for task in tasks
    }


def _daisy_tasks(tasks: Sequence[BlockTask], functions: Sequence[Any], cluster: ClusterConfig) -> dict[str, daisy.Task]:
    depths = _depths(tasks)
    return {
        task.name: _daisy_task(task, function, cluster, depths[task.name])
        for task, function in zip(tasks, functions, strict=True)
    }


def _depths(tasks: Sequence[BlockTask]) -> dict[str, int]:
    """How many of the tasks each one waits for, one after another; upstream tasks come first."""
    depths: dict[str, int] = {}
    for task in tasks:
        before = [depths[upstream.name] for upstream in task.upstream if upstream.name in depths]
        depths[task.name] = max(before, default=-1) + 1
    return depths


def _slots(tasks: Sequence[BlockTask], cluster: ClusterConfig) -> dict[str, int]:
    """Places for workers, so that no task can be left without one by tasks that wait for it.

    daisy keeps workers that wait for blocks. When the last worker of an early task dies, workers of later tasks take
    its place and would wait for ever for the block that it had. So the tasks at depth d or deeper together get one
    place less than those at depth d - 1 or deeper, and there are as many places more than `cluster.workers` in all.
    """
    deepest = max(_depths(tasks).values())
    return {_slot(depth): cluster.workers + deepest - depth for depth in range(deepest + 1)}


def _slot(depth: int) -> str:
    return f"worker at depth {depth} or more"


def _pipeline(tasks: Sequence[BlockTask], daisy_tasks: dict[str, daisy.Task]) -> daisy.Pipeline:
    edges = [
        (daisy_tasks[upstream.name], daisy_tasks[task.name])
        for task in tasks
        for upstream in task.upstream
        if upstream.name in daisy_tasks
    ]
    return daisy.Pipeline(list(daisy_tasks.values()), edges)


def _take_room_for_markers(task: BlockTask, cluster: ClusterConfig) -> None:
    """Have daisy create its files, and give them room on the disk.

    daisy maps sparse files into memory; on a disk that has become full, setting a marker would kill the driver.

    Raises:
        UserError: there is no room.
    """
    folder = marker_folder(task)
    if any(folder.glob("*/c/0/0/0")):
        return
    nothing = _daisy_task(task, _no_work, cluster, skip=np.ones(task.grid.shape, dtype=bool))
    daisy.run_blockwise(nothing, multiprocessing=False, progress=False, summary=False)
    for path in folder.glob("*/c/0/0/0"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise UserError(f"cannot be written: {error.strerror}", str(path)) from error


def _no_work(block: daisy.Block) -> None:
    """For a run that only creates daisy's files."""


def _daisy_task(
    task: BlockTask, function: Any, cluster: ClusterConfig, depth: int = 0, skip: np.ndarray | None = None
) -> daisy.Task:
    grid = task.grid
    first = grid.to_roi(grid.block(0).box)
    context = task.context * grid.voxel_size
    return daisy.Task(
        task.name,
        total_roi=grid.to_roi(grid.box).grow(context, context),
        read_roi=first.grow(context, context),
        write_roi=first,
        process_function=function,
        read_write_conflict=False,
        fit="shrink",
        timeout=cluster.block_timeout,
        max_retries=cluster.retries,
        max_worker_restarts=cluster.worker_restarts,
        max_workers=cluster.workers,
        tracking_path=str(marker_folder(task)),
        skip_mask=task.empty if skip is None else skip,
        resource_tracking=True,
        requires={_slot(above): 1 for above in range(depth + 1)},
    )


def _outcomes(
    daisy_tasks: dict[str, daisy.Task],
    tasks: Sequence[BlockTask],
    states: dict[str, daisy.TaskState],
    costs: dict[str, _Cost],
    seconds: float,
) -> list[Outcome]:
    busy = sum(cost.seconds for cost in costs.values()) or 1.0
    return [
        _outcome(task, daisy_tasks[task.name], states[task.name], costs[task.name], seconds / busy) for task in tasks
    ]


def _outcome(task: BlockTask, daisy_task: daisy.Task, state: daisy.TaskState, cost: _Cost, share: float) -> Outcome:
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
    told = {failure.block: failure for failure in read_failures(task)}
    if reason_to_end(task) is not None or state.failed_count == len(told):
        return tuple(told.values())
    silent = {task.grid.block_of(block.write_roi).index for block in daisy_task.failed_blocks()} - told.keys()
    reason = f"its worker died, or it took longer than cluster.block_timeout ({state.timeout_secs} s)"
    return (*told.values(), *(BlockFailure(block, reason, "", Trouble.UNKNOWN) for block in sorted(silent)))


def _first_error(failures: Sequence[BlockFailure], state: daisy.TaskState) -> str | None:
    if failures:
        return f"block {failures[0].block}: {failures[0].error}"
    trace = state.first_worker_error or state.last_worker_error or state.abandon_reason
    return str(trace).strip().splitlines()[-1] if trace else None
