"""Where blocks are computed: in this process, in worker processes on this machine, or in batch jobs of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from daisy import logging as daisy_logging

from ...config.cluster import ExecutorName
from ...errors import UserError, writing
from ...run import Run
from ..blocks.stage import BlockTask
from ..tracking.driver_record import DriverRecord, TaskRecord, read_driver
from ..tracking.markers import marked_blocks
from .base import Executor
from .local import LocalExecutor
from .scheduling import Outcome, take_room_for_markers
from .serial import SerialExecutor
from .slurm import SlurmExecutor
from .until_recorded import run_until_recorded

EXECUTORS: dict[str, type[Executor]] = {"serial": SerialExecutor, "local": LocalExecutor, "slurm": SlurmExecutor}


def check_executor(run: Run, tasks: Sequence[BlockTask], executor: ExecutorName) -> None:
    """Make sure that an executor can start the workers of tasks, before anything is written.

    Raises:
        UserError: the cluster refuses their jobs, or none can be reached from here.
    """
    EXECUTORS[executor]().check(run, tasks)


def require_executor(run: Run) -> None:
    """Make sure that workers can be started from here at all, before hours of training.

    Raises:
        UserError: the cluster cannot be reached from here.
    """
    check_executor(run, [], run.config.cluster.executor)


def run_blocks(run: Run, tasks: Sequence[BlockTask], executor: ExecutorName | None = None) -> list[Outcome]:
    """Compute the blocks of tasks, upstream tasks first: where the config says, unless an executor is named.

    Raises:
        UserError: the log directory cannot be written.
    """
    if not tasks:
        return []
    with writing(run.logs):
        run.logs.mkdir(parents=True, exist_ok=True)
    daisy_logging.set_log_basedir(run.logs)
    for task in tasks:
        take_room_for_markers(task, run.config.cluster)
    executor = executor or run.config.cluster.executor
    computing = EXECUTORS[executor]()
    with _recorded(run, tasks, executor) as record:
        return run_until_recorded(tasks, lambda held: computing.run(run, tasks, record, held))


@contextlib.contextmanager
def _recorded(run: Run, tasks: Sequence[BlockTask], executor: str) -> Iterator[DriverRecord]:
    """Keep `driver.json` up to date: what this driver works on, and when it was through."""
    record = DriverRecord.of_this_process(
        executor,
        tuple(
            TaskRecord(
                task.name,
                str(task.folder.relative_to(run.directory)),
                len(task.grid),
                int((marked_blocks(task) | task.empty).sum()),
            )
            for task in tasks
        ),
    )
    record.save(run)
    try:
        yield record
    finally:
        with contextlib.suppress(UserError):  # on a full disk there is more to tell
            (read_driver(run) or record).ended_now().save(run)
