"""Blocks for worker processes, wherever these run: daisy's server in the driver, and a thread for each worker.

daisy calls a function for each worker that it wants, in a thread, and takes it that the worker lives until the function
returns. daisy's own wrapper would start a Python process for each of these functions, which for workers on other
machines would sit beside the driver and wait; so the server is called without it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import daisy.v2 as daisy
from daisy import _daisy as daisy_core
from daisy._progress import _TqdmObserver

from ...command_names import what_the_user_typed
from ...run import Run
from ..blocks.process import LOG, WORKER, thread_variables
from ..blocks.stage import BlockTask
from ..tracking.driver_record import DriverNotice
from ..tracking.failures import reason_to_end, record_death
from ..tracking.markers import marked_blocks
from ..tracking.worker_records import read_entry
from ..tracking.worker_spec import Order, order_path
from ..workers.driver_connection import Lifeline, listening
from .base import Executor
from .scheduling import Outcome, cost_of, daisy_tasks_of, outcomes_of, pipeline_of, slots

LOG_TAIL = 4096
"""Bytes at the end of a log in which the last words of a worker are sought."""


class WorkerLost(Exception):
    """A worker is given up; the text says why. daisy replaces it up to `cluster.worker_restarts` times."""


@dataclass
class Service:
    """The driver while its tasks run: what the threads of all workers share.

    Attributes:
        run: whose config says how.
        tasks: what runs.
        notice: what others are told of it.
        lifeline: where workers report.
        stopping: the driver is told to stop.
    """

    run: Run
    tasks: Sequence[BlockTask]
    notice: DriverNotice
    lifeline: Lifeline
    stopping: threading.Event = field(default_factory=threading.Event)
    _ends: set[Callable[[], None]] = field(default_factory=set)
    _over: set[str] = field(default_factory=set)
    _news: dict[str, list[threading.Event]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def news_for(self, task: BlockTask) -> threading.Event:
        """An event that is set when something about a task changes; its owner sets it for reasons of its own too."""
        event = threading.Event()
        with self._lock:
            self._news.setdefault(task.name, []).append(event)
        return event

    def needs_no_worker(self, task: BlockTask) -> bool:
        """Whether a worker that has not begun can be spared."""
        return self.stopping.is_set() or task.name in self._over or self.ends_early()

    def ends_early(self) -> bool:
        """Whether one of the tasks was told to end."""
        return any(reason_to_end(task) is not None for task in self.tasks)

    def finish(self, task: str) -> None:
        """No block of a task is left."""
        self._over.add(task)
        self._wake(self._news.get(task, ()))

    def stop(self) -> None:
        """The driver is told to stop."""
        self.stopping.set()
        self._wake([event for events in list(self._news.values()) for event in events])
        for end in list(self._ends):
            end()

    @contextlib.contextmanager
    def ended_by(self, end: Callable[[], None]) -> Iterator[None]:
        """Have something called if the driver is told to stop while the block lasts, or was already."""
        self._ends.add(end)
        if self.stopping.is_set():
            end()
        try:
            yield
        finally:
            self._ends.discard(end)

    def announce(self, task: BlockTask, context: str) -> None:
        """Tell on disk how workers of a task reach the scheduler, once."""
        with self._lock:
            if all(notice.context for notice in self.notice.tasks if notice.task == task.name):
                return
            self.notice = self.notice.with_context(task.name, context)
            self.notice.save(self.run)

    def died(self, task: BlockTask, worker: str, reason: str) -> None:
        """A worker died of itself: the blocks that it had have been tried once more."""
        entry = read_entry(task, worker)
        if entry is None or not entry.blocks:
            return
        done = marked_blocks(task).ravel()
        for block in entry.blocks:
            if not done[block]:
                record_death(task, block, reason)

    @staticmethod
    def _wake(events: Sequence[threading.Event]) -> None:
        for event in events:
            event.set()


class ServedExecutor(Executor):
    """Worker processes that are handed blocks by daisy's server."""

    returns = 0
    """How often a block may come back untried."""

    @abstractmethod
    def address(self, run: Run) -> str:
        """The address that workers dial.

        Raises:
            UserError: the config asks for one that this machine does not have.
        """

    @abstractmethod
    def staff(self, service: Service) -> contextlib.AbstractContextManager[Callable[[BlockTask, str, str], None]]:
        """Everything that workers need to be started.

        Returns:
            A function of task, worker and daisy's context that starts a worker, and returns when it has ended as it
            should; it raises `WorkerLost` when it is given up.
        """

    def run(self, run: Run, tasks: Sequence[BlockTask], notice: DriverNotice) -> list[Outcome]:
        cluster, address = run.config.cluster, self.address(run)
        started = time.monotonic()
        with listening(address) as lifeline:
            service = Service(run, tasks, notice, lifeline)
            for task in tasks:
                Order(task, address, lifeline.port, lifeline.secret).save(order_path(task))
            with self.staff(service) as start_worker, _stopped_by_signals(service):
                functions = [_starter(service, task, start_worker) for task in tasks]
                daisy_tasks = daisy_tasks_of(tasks, functions, cluster, self.returns)
                states, _ = daisy_core._run_distributed_server(
                    pipeline_of(tasks, daisy_tasks),
                    slots(tasks, cluster),
                    _Observer(service),
                    host=address,
                    block_tracking=True,
                )
        costs = {task.name: cost_of(task) for task in tasks}
        return outcomes_of(daisy_tasks, tasks, states, costs, time.monotonic() - started)


def worker_environment(run: Run, worker: str, context: str, log: str) -> dict[str, str]:
    """The variables of a worker process: who it is, where the scheduler is, where the program is, how many threads.

    Args:
        run: whose blocks it computes.
        worker: its name.
        context: of daisy.
        log: path of what it prints.
    """
    program = str(Path(__file__).resolve().parents[2])
    search = [program, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        "DAISY_CONTEXT": context,
        WORKER: worker,
        LOG: log,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(search)),
        "PYTHONUNBUFFERED": "1",
        **what_the_user_typed(),
        **thread_variables(run.config.cluster.threads_per_worker),
    }


def worker_command(task: BlockTask) -> list[str]:
    """What starts a worker process."""
    return [sys.executable, "-m", "pipeline.engine.workers.job", str(order_path(task))]


def last_words(log: Path) -> str:
    """The last line that a worker printed; empty if it printed none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _starter(
    service: Service, task: BlockTask, start_worker: Callable[[BlockTask, str, str], None]
) -> Callable[..., None]:
    """The function that daisy calls for each worker of a task."""

    def start(*, context: daisy.Context) -> None:
        encoded = context.to_env()
        service.announce(task, encoded)
        if service.needs_no_worker(task):
            if service.ends_early():
                raise WorkerLost("the stage ends early")
            return
        start_worker(task, str(context["worker_id"]), encoded)

    return start


class _Observer:
    """Told by daisy after each block: lets a progress bar know, and the workers of tasks that are over."""

    def __init__(self, service: Service) -> None:
        self._service = service
        names = tuple(task.name for task in service.tasks)
        self._bars = _TqdmObserver(task_order=list(names)) if sys.stderr.isatty() else None
        self._open = names

    def on_start(self, states: Mapping[str, Any]) -> None:
        """Before the first block."""
        if self._bars is not None:
            self._bars.on_start(states)

    def on_progress(self, states: Mapping[str, Any]) -> None:
        """After a block; daisy's server waits for it, so that it asks no more than each open task."""
        for task in self._open:
            if states[task].is_done():
                self._open = tuple(other for other in self._open if other != task)
                self._service.finish(task)
        if self._bars is not None:
            self._bars.on_progress(states)

    def on_finish(self, states: Mapping[str, Any]) -> None:
        """When all workers have ended."""
        if self._bars is not None:
            self._bars.on_finish(states)


@contextlib.contextmanager
def _stopped_by_signals(service: Service) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the driver, and it its workers: daisy waits for all of them before it lets go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        service.stop()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
