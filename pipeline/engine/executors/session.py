"""The driver while its tasks run: what the threads that start workers and wait for them share."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ...run import Run
from ...stop_signals import stop_signals_call
from ..blocks.stage import BlockTask
from ..tracking.driver_record import DriverRecord
from ..tracking.failures import KILLED_FOR_MEMORY, end_early, reason_to_end, record_death
from ..tracking.markers import marked_blocks
from ..tracking.memory import SIGNS, what_lowers_memory
from ..tracking.worker_records import longest_block, read_worker_record
from ..workers.driver_connection import DriverServer

LAST_SECONDS = 10.0
"""How long to wait for workers that were killed."""


FRUITLESS = 3
"""Workers of a task that may end in a row for lack of memory before they have begun with a block."""


@dataclass
class DriverSession:
    """The driver while its tasks run.

    Attributes:
        run: whose config says how.
        tasks: what runs.
        record: what others are told of the driver.
        server: where workers report.
        stopping: the driver is told to stop.
    """

    run: Run
    tasks: Sequence[BlockTask]
    record: DriverRecord
    server: DriverServer
    stopping: threading.Event = field(default_factory=threading.Event)
    _ends: set[Callable[[], None]] = field(default_factory=set)
    _over: set[str] = field(default_factory=set)
    _fruitless: dict[str, int] = field(default_factory=dict)
    _changes: dict[str, list[threading.Event]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def changes_of(self, task: BlockTask) -> threading.Event:
        """An event that is set when something about a task changes; its owner sets it for reasons of its own too."""
        event = threading.Event()
        with self._lock:
            self._changes.setdefault(task.name, []).append(event)
        return event

    def needs_no_worker(self, task: BlockTask) -> bool:
        """Whether a worker that has not begun can be spared."""
        return self.stopping.is_set() or self.is_over(task) or self.ends_early()

    def is_over(self, task: BlockTask) -> bool:
        """Whether a task has no block left."""
        return task.name in self._over

    def ends_early(self) -> bool:
        """Whether one of the tasks was told to end."""
        return any(reason_to_end(task) is not None for task in self.tasks)

    def finish(self, task: str) -> None:
        """Note that a task has no block left, so that it needs no more workers."""
        self._over.add(task)
        self._wake(self._changes.get(task, ()))

    def stop(self) -> None:
        """Stop the driver: end all workers, and start no more."""
        self.stopping.set()
        self._wake([event for events in list(self._changes.values()) for event in events])
        for end in list(self._ends):
            end()

    def end_workers(self) -> None:
        """End all workers, start no more, and wait until those of this machine are gone."""
        self.stop()
        deadline = time.monotonic() + LAST_SECONDS
        while self._ends and time.monotonic() < deadline:
            time.sleep(0.02)

    @contextlib.contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM stop the driver, and it its workers: daisy waits for all of them before it lets go.

        Raises:
            KeyboardInterrupt: there was one. It is raised anew at the end, since daisy passes over what is raised while
                it tells of its progress.
        """
        interrupted = threading.Event()

        def stop(number: int) -> None:
            interrupted.set()
            self.stop()
            raise KeyboardInterrupt

        try:
            with stop_signals_call(stop):
                yield
        finally:
            if interrupted.is_set():
                raise KeyboardInterrupt

    @contextlib.contextmanager
    def ended_by(self, end: Callable[[], None]) -> Iterator[None]:
        """Call a function if the driver is told to stop while the block lasts, or was told before."""
        self._ends.add(end)
        if self.stopping.is_set():
            end()
        try:
            yield
        finally:
            self._ends.discard(end)

    def announce(self, task: BlockTask, context: str) -> None:
        """Write to `driver.json` how workers of a task reach the scheduler; once."""
        with self._lock:
            if all(record.context for record in self.record.tasks if record.task == task.name):
                return
            self.record = self.record.with_context(task.name, context)
            self.record.save(self.run)

    def worker_died(self, task: BlockTask, worker: str, reason: str) -> None:
        """Count a try of each block that a worker had under way when it died of itself."""
        record = read_worker_record(task, worker)
        if record is None or not record.blocks:
            return
        done = marked_blocks(task).ravel()
        for block in record.blocks:
            if not done[block]:
                record_death(task, block, reason)

    def note_end(self, task: BlockTask, worker: str, reason: str) -> None:
        """End a task whose workers die for memory before they have begun, one after another, and none did a block."""
        record = read_worker_record(task, worker)
        if record is not None and (record.done or record.failed or record.blocks):
            self._fruitless[task.name] = 0
            return
        self._fruitless[task.name] = self._fruitless.get(task.name, 0) + 1
        is_short = SIGNS.search(reason) is not None or KILLED_FOR_MEMORY in reason
        if is_short and self._fruitless[task.name] >= FRUITLESS and longest_block(task) == 0:
            end_early(task, f"no worker could begin for too little memory: {reason}; {what_lowers_memory(task)}")

    @staticmethod
    def _wake(events: Sequence[threading.Event]) -> None:
        for event in events:
            event.set()
