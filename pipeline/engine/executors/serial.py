"""This process, one block after the other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import daisy.v2 as daisy
from typing_extensions import override

from ...run import Run
from ..blocks.process import threads_restored
from ..blocks.stage import BlockTask
from ..tracking.driver_record import DriverRecord
from ..tracking.worker_records import DONE, open_worker_record
from ..workers.worker import BlockLog, OpenTask, attempt
from .base import Executor
from .portions import Held
from .scheduling import Cost, Outcome, daisy_tasks_of, outcomes_of, pipeline_of


class SerialExecutor(Executor):
    """This process, one block after the other."""

    @override
    def run(self, run: Run, tasks: Sequence[BlockTask], record: DriverRecord, held: Held) -> list[Outcome]:
        cluster = run.config.cluster
        started = time.monotonic()
        with threads_restored(), contextlib.ExitStack() as stack:
            functions = [_InProcess(task, stack) for task in tasks]
            daisy_tasks = daisy_tasks_of(tasks, functions, cluster, held)
            states = daisy.run_blockwise(
                pipeline_of(tasks, daisy_tasks),
                multiprocessing=False,
                progress=False,
                return_states=True,
                summary=False,
            )
        costs = {function.__name__: function.cost for function in functions}
        return outcomes_of(daisy_tasks, tasks, states, costs, time.monotonic() - started)


class _InProcess:
    """The block function of the serial executor, the only worker of its task: opens it at its first block."""

    def __init__(self, task: BlockTask, stack: contextlib.ExitStack) -> None:
        self._record = open_worker_record(task, "0")
        stack.callback(self._record.leave, DONE)
        self._log = BlockLog(task, self._record)
        self._opened = stack.enter_context(OpenTask(task))
        self.__name__ = task.name

    def __call__(self, given: daisy.Block) -> None:
        block = self._log.begin(given)
        success = attempt(self._opened, block)
        self._log.end(block, success)
        if not success:
            given.status = daisy.BlockStatus.FAILED

    @property
    def cost(self) -> Cost:
        """Seconds and memory that its blocks took."""
        return Cost(self._record.record.busy, self._record.record.memory)
