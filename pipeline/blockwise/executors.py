"""Where blocks are computed: in this process, in worker processes on this machine, or in batch jobs of a cluster."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import daisy.v2 as daisy
from daisy import logging as daisy_logging

from ..config import ClusterConfig
from ..errors import UserError
from ..run import Run
from .driver import DriverNotice, TaskNotice, read_driver
from .markers import marked_blocks
from .memory import peak_memory
from .roster import DONE, Attendance, attend
from .scheduling import Cost, Outcome, daisy_tasks_of, outcomes_of, pipeline_of, take_room_for_markers
from .stage import BlockTask
from .worker import OpenTask, attempt


class Executor(ABC):
    """A place where blocks are computed."""

    @abstractmethod
    def run(self, run: Run, tasks: Sequence[BlockTask], notice: DriverNotice) -> list[Outcome]:
        """Compute all blocks that are not marked as done.

        Args:
            run: whose config says how.
            tasks: upstream tasks first.
            notice: what others are told of this driver.
        """


class SerialExecutor(Executor):
    """This process, one block after the other."""

    def run(self, run: Run, tasks: Sequence[BlockTask], notice: DriverNotice) -> list[Outcome]:
        cluster = run.config.cluster
        costs = {task.name: Cost() for task in tasks}
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            functions = [_InProcess(task, stack, costs[task.name]) for task in tasks]
            daisy_tasks = daisy_tasks_of(tasks, functions, cluster)
            states = daisy.run_blockwise(
                pipeline_of(tasks, daisy_tasks),
                multiprocessing=False,
                progress=False,
                return_states=True,
                summary=False,
            )
        return outcomes_of(daisy_tasks, tasks, states, costs, time.monotonic() - started)


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
        return _executor(run.config.cluster).run(run, tasks, notice)


def _executor(cluster: ClusterConfig) -> Executor:
    """Those with workers are imported when they are needed: their modules import this one."""
    if cluster.executor == "serial":
        return SerialExecutor()
    if cluster.executor == "local":
        from .local import LocalExecutor

        return LocalExecutor()
    from .batch import SlurmExecutor

    return SlurmExecutor()


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


class _InProcess:
    """The block function of the serial executor: opens the task at its first block, and measures."""

    def __init__(self, task: BlockTask, stack: contextlib.ExitStack, cost: Cost) -> None:
        self._task, self._cost = task, cost
        self._attendance = attend(task, "0")
        stack.callback(self._leave, self._attendance)
        self._opened = stack.enter_context(contextlib.closing(OpenTask(task)))
        self.__name__ = task.name

    def __call__(self, block: daisy.Block) -> None:
        started = time.monotonic()
        index = self._task.grid.block_of(block.write_roi).index
        self._attendance.begin(index)
        success = attempt(self._opened, self._task.grid.block(index))
        self._attendance.end(success)
        if not success:
            block.status = daisy.BlockStatus.FAILED
        self._cost.seconds += time.monotonic() - started
        self._cost.memory = peak_memory()

    @staticmethod
    def _leave(attendance: Attendance) -> None:
        with contextlib.suppress(OSError):
            attendance.leave(DONE)
