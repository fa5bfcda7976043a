"""Where blocks are computed: in this process, in worker processes on this machine, or in batch jobs of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from daisy import logging as daisy_logging

from ...errors import UserError
from ...run import Run
from ..blocks.stage import BlockTask
from ..tracking.driver_record import DriverNotice, TaskNotice, read_driver
from ..tracking.markers import marked_blocks
from .base import Executor
from .local import LocalExecutor
from .scheduling import Outcome, take_room_for_markers
from .serial import SerialExecutor
from .slurm import SlurmExecutor

EXECUTORS: dict[str, type[Executor]] = {"serial": SerialExecutor, "local": LocalExecutor, "slurm": SlurmExecutor}


def run_blocks(run: Run, tasks: Sequence[BlockTask]) -> list[Outcome]:
    """Compute the blocks of tasks where the config says, upstream tasks first.

    Raises:
        UserError: the log directory cannot be written, or the cluster refuses the jobs.
    """
    if not tasks:
        return []
    try:
        run.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", str(run.logs)) from error
    daisy_logging.set_log_basedir(run.logs)
    for task in tasks:
        take_room_for_markers(task, run.config.cluster)
    with _noticed(run, tasks) as notice:
        return EXECUTORS[run.config.cluster.executor]().run(run, tasks, notice)


@contextlib.contextmanager
def _noticed(run: Run, tasks: Sequence[BlockTask]) -> Iterator[DriverNotice]:
    """Tell others what this driver works on, and when it is through."""
    notice = DriverNotice.of_this_process(
        run.config.cluster.executor,
        tuple(
            TaskNotice(
                task.name,
                str(task.folder.relative_to(run.directory)),
                len(task.grid),
                int((marked_blocks(task) | task.empty).sum()),
            )
            for task in tasks
        ),
    )
    notice.save(run)
    try:
        yield notice
    finally:
        with contextlib.suppress(UserError):  # on a full disk there is more to tell
            (read_driver(run) or notice).ended_now().save(run)
