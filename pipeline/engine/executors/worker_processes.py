"""Blocks for worker processes, wherever these run: daisy's server in the driver, and a thread for each worker.

daisy calls a function for each worker that it wants, in a thread, and takes it that the worker lives until the function
returns. daisy's own wrapper would start a Python process for each of these functions, which for workers on other
machines would sit beside the driver and wait; so the server is called without it.
"""

from __future__ import annotations

import contextlib
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import daisy.v2 as daisy
from daisy import _daisy as daisy_core
from daisy._progress import _TqdmObserver
from typing_extensions import override

from ...command_names import what_the_user_typed
from ...rag import password_in_environment
from ...run import Run
from ...search_path import module_command, python_path
from ...terminal import ProgressLines
from ..blocks.process import LOG, WORKER, thread_variables
from ..blocks.stage import BlockTask
from ..tracking.driver_record import DriverRecord
from ..tracking.worker_spec import WorkerSpec, worker_spec_path
from ..workers.driver_connection import driver_server
from ..workers.worker import STAGE_ENDS_EARLY
from .base import Executor
from .portions import Held
from .scheduling import Outcome, cost_of, daisy_tasks_of, outcomes_of, pipeline_of, slots
from .session import DriverSession
from .until_recorded import ServerDied

PANIC_MODULE = "pyo3_runtime"
"""Where the exception is from that a panic of compiled Rust becomes; it cannot be imported."""
LOG_TAIL = 4096
"""Bytes at the end of a log in which the last line of a worker is sought."""

WorkerStarter = Callable[[BlockTask, str, str], None]
"""Starts a worker for a task, by its name and with daisy's context; see `ProcessExecutor.worker_starter`."""


class WorkerLost(Exception):
    """A worker is given up; the text says why. daisy replaces it up to `cluster.worker_restarts` times."""


class ProcessExecutor(Executor):
    """Worker processes that are handed blocks by daisy's server."""

    returns = 0
    """How often a block may come back untried."""

    @abstractmethod
    def address(self, run: Run) -> str:
        """The address that workers connect to.

        Raises:
            UserError: the config asks for one that this machine does not have.
        """

    @abstractmethod
    def worker_starter(self, session: DriverSession) -> contextlib.AbstractContextManager[WorkerStarter]:
        """Everything that workers need to be started.

        Returns:
            A function of task, worker and daisy's context that starts a worker, and returns when it has ended as it
            should; it raises `WorkerLost` when it is given up.
        """

    @override
    def run(self, run: Run, tasks: Sequence[BlockTask], record: DriverRecord, held: Held) -> list[Outcome]:
        cluster, address = run.config.cluster, self.address(run)
        started = time.monotonic()
        with driver_server(address) as server:
            session = DriverSession(run, tasks, record, server)
            for task in tasks:
                WorkerSpec.of_task(task, address, server.port, server.secret).save(worker_spec_path(task))
            with (
                password_in_environment(run.config.rag.url),
                self.worker_starter(session) as start_worker,
                session.stopped_by_signals(),
                _death_of_daisy_passes(session),
            ):
                functions = [_worker_function(session, task, start_worker) for task in tasks]
                daisy_tasks = daisy_tasks_of(tasks, functions, cluster, held, self.returns)
                states, _ = daisy_core._run_distributed_server(
                    pipeline_of(tasks, daisy_tasks),
                    slots(tasks, cluster),
                    _Observer(session),
                    host=address,
                    block_tracking=True,
                )
        costs = {task.name: cost_of(task) for task in tasks}
        return outcomes_of(daisy_tasks, tasks, states, costs, time.monotonic() - started)


@contextlib.contextmanager
def _death_of_daisy_passes(session: DriverSession) -> Iterator[None]:
    """Turn a panic of daisy's server, which is no `Exception`, into one; no worker of it is left.

    Raises:
        ServerDied: instead.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != PANIC_MODULE:
            raise
        session.end_workers()
        raise ServerDied(f"daisy's server broke down ({' '.join(str(error).split())})") from error


def worker_environment(run: Run, worker: str, context: str, log: str) -> dict[str, str]:
    """The variables of a worker process: who it is, where the scheduler is, where the program is, how many threads.

    Args:
        run: whose blocks it computes.
        worker: its name.
        context: of daisy.
        log: path of what it prints.
    """
    return {
        "DAISY_CONTEXT": context,
        WORKER: worker,
        LOG: log,
        "PYTHONPATH": python_path(),
        "PYTHONUNBUFFERED": "1",
        **what_the_user_typed(),
        **thread_variables(run.config.cluster.threads_per_worker),
    }


def worker_command(task: BlockTask) -> list[str]:
    """What starts a worker process."""
    return module_command("pipeline.engine.workers.job", str(worker_spec_path(task)))


def last_words(log: Path) -> str:
    """The last line that a worker printed; empty if it printed none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _worker_function(session: DriverSession, task: BlockTask, start_worker: WorkerStarter) -> Callable[..., None]:
    """The function that daisy calls for each worker of a task, and again if it returns before the task is done."""

    def run_worker(*, context: daisy.Context) -> None:
        session.server.guard(int(context["port"]))
        encoded = context.to_env()
        session.announce(task, encoded)
        if not session.needs_no_worker(task):
            start_worker(task, str(context["worker_id"]), encoded)
        if session.ends_early():
            raise WorkerLost(STAGE_ENDS_EARLY)

    return run_worker


class _Observer:
    """Called by daisy after each block: shows how far the tasks are, and notes which of them have no block left."""

    def __init__(self, session: DriverSession) -> None:
        self._session = session
        names = tuple(task.name for task in session.tasks)
        self._bars = _TqdmObserver(task_order=list(names)) if sys.stderr.isatty() else None
        self._lines = {
            task.task: ProgressLines(task.task, task.blocks, "blocks", task.done_before)
            for task in session.record.tasks
        }
        self._open = names

    def on_start(self, states: Mapping[str, Any]) -> None:
        """Called before the first block."""
        if self._bars is not None:
            self._bars.on_start(states)

    def on_progress(self, states: Mapping[str, Any]) -> None:
        """Called after each block; daisy's server waits for it, so it asks no more than each open task."""
        for task in self._open:
            if self._bars is None:
                failed = states[task].failed_count
                self._lines[task].tell(states[task].completed_count, f"{failed:,} failed" if failed else "")
            if states[task].is_done():
                self._open = tuple(other for other in self._open if other != task)
                self._session.finish(task)
        if self._bars is not None:
            self._bars.on_progress(states)

    def on_finish(self, states: Mapping[str, Any]) -> None:
        """Called when all workers have ended."""
        if self._bars is not None:
            self._bars.on_finish(states)
