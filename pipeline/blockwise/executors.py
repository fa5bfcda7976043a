"""Run block tasks: in this process, or in worker processes on this machine. Both schedule with daisy.

Tasks given together are chained: a block starts as soon as the upstream blocks that it reads are done. All tasks
together use at most `cluster.workers` workers at a time. Success is judged by the state of every task, block by block.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import daisy.v2 as daisy
from daisy import logging as daisy_logging

from ..config import ClusterConfig
from ..errors import UserError
from ..run import Run
from .stage import BlockTask
from .tracking import marker_folder, peak_memory, read_failures, read_memory
from .worker import attempt, limit_threads, thread_environment, work


@dataclass(frozen=True)
class Outcome:
    """What became of the blocks of one task.

    Attributes:
        task: the task.
        done, skipped, failed, orphaned: blocks; skipped ones were done before, orphaned ones need a failed one.
        seconds: wall time; of tasks that ran together, each gets its share by the time of its blocks.
        voxels: written by the blocks done now.
        peak_memory: bytes, of the worker that needed most; 0 if nothing was done.
        error: the first error in one line; None if there was none.
    """

    task: BlockTask
    done: int
    skipped: int
    failed: int
    orphaned: int
    seconds: float
    voxels: int
    peak_memory: int
    error: str | None

    @staticmethod
    def of_done(task: BlockTask) -> Outcome:
        """A task that was complete before."""
        return Outcome(task, 0, len(task.grid), 0, 0, 0.0, 0, 0, None)

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
        functions = [functools.partial(work, task) for task in tasks]
        server = daisy.Server()
        started = time.monotonic()
        with thread_environment(cluster.threads_per_worker):
            states = server.run_blockwise(
                _pipeline(tasks, functions, cluster),
                resources={"worker": cluster.workers},
                progress=sys.stderr.isatty(),
                host="127.0.0.1",
                summary=False,
            )
        costs = _costs(tasks, server.last_tracking_summary or {})
        return _outcomes(tasks, states, costs, time.monotonic() - started)


class SerialExecutor(Executor):
    """This process, one block after the other."""

    def run(self, tasks: Sequence[BlockTask], cluster: ClusterConfig) -> list[Outcome]:
        costs = {task.name: _Cost() for task in tasks}
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            functions = [_InProcess(task, stack, costs[task.name]) for task in tasks]
            states = daisy.run_blockwise(
                _pipeline(tasks, functions, cluster),
                multiprocessing=False,
                progress=False,
                return_states=True,
                summary=False,
            )
        return _outcomes(tasks, states, costs, time.monotonic() - started)


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
    return EXECUTORS[run.config.cluster.executor]().run(tasks, run.config.cluster)


@dataclass
class _Cost:
    """Busy seconds of a task's blocks, and the peak memory in bytes."""

    seconds: float = 0.0
    memory: int = 0


class _InProcess:
    """The block function of the serial executor: opens the task at its first block, and measures."""

    def __init__(self, task: BlockTask, stack: contextlib.ExitStack, cost: _Cost) -> None:
        self._task, self._stack, self._cost = task, stack, cost
        self._process_block: Any = None
        self.__name__ = task.name

    def __call__(self, block: daisy.Block) -> None:
        if self._process_block is None:
            self._process_block = self._stack.enter_context(self._task.process())
            limit_threads(self._task.run.config.cluster.threads_per_worker)
        started = time.monotonic()
        if not attempt(self._task, self._process_block, block):
            block.status = daisy.BlockStatus.FAILED
        self._cost.seconds += time.monotonic() - started
        self._cost.memory = peak_memory()


def _costs(tasks: Sequence[BlockTask], summary: dict[str, Any]) -> dict[str, _Cost]:
    """What daisy and the workers measured."""
    measured = summary.get("per_task", {})
    return {
        task.name: _Cost(float(measured.get(task.name, {}).get("total_block_secs", 0.0)), read_memory(task))
        for task in tasks
    }


def _pipeline(tasks: Sequence[BlockTask], functions: Sequence[Any], cluster: ClusterConfig) -> daisy.Pipeline:
    daisy_tasks = {
        task.name: _daisy_task(task, function, cluster) for task, function in zip(tasks, functions, strict=True)
    }
    edges = [
        (daisy_tasks[upstream.name], daisy_tasks[task.name])
        for task in tasks
        for upstream in task.upstream
        if upstream.name in daisy_tasks
    ]
    return daisy.Pipeline(list(daisy_tasks.values()), edges)


def _daisy_task(task: BlockTask, function: Any, cluster: ClusterConfig) -> daisy.Task:
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
        resource_tracking=True,
        requires={"worker": 1},
    )


def _outcomes(
    tasks: Sequence[BlockTask], states: dict[str, daisy.TaskState], costs: dict[str, _Cost], seconds: float
) -> list[Outcome]:
    busy = sum(cost.seconds for cost in costs.values()) or 1.0
    return [_outcome(task, states[task.name], costs[task.name], seconds / busy) for task in tasks]


def _outcome(task: BlockTask, state: daisy.TaskState, cost: _Cost, share: float) -> Outcome:
    done = state.completed_count - state.skipped_count
    return Outcome(
        task=task,
        done=done,
        skipped=state.skipped_count,
        failed=state.failed_count,
        orphaned=len(task.grid) - state.completed_count - state.failed_count,
        seconds=cost.seconds * share,
        voxels=round(task.grid.box.size * done / len(task.grid)),
        peak_memory=cost.memory if done else 0,
        error=_first_error(task, state),
    )


def _first_error(task: BlockTask, state: daisy.TaskState) -> str | None:
    if state.completed_count == len(task.grid):
        return None
    failures = read_failures(task)
    if failures:
        return f"block {failures[0].block}: {failures[0].error}"
    trace = state.first_worker_error or state.last_worker_error or state.abandon_reason
    if trace:
        return str(trace).strip().splitlines()[-1]
    return f"a block took longer than cluster.block_timeout ({state.timeout_secs} s)" if state.failed_count else None
