"""Batches prepared ahead by worker processes, handed out in the order of the iterations.

Worker k of n makes the batches k, k + n, k + 2n, … and puts them into its own slots of shared memory, so that reading
the workers' in turn restores the order. Since a batch is a pure function of its iteration, the number of workers
changes nothing, and may change while a training runs.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing as mp
import os
import queue
import signal
import sys
import traceback as tracebacks
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import Any, NoReturn

from ...errors import UserError
from ...search_path import safe_search_path
from .samples import Arrays, SampleMaker, Sampling, batch_layout
from .shared_batches import BatchSlots
from .waiting import STARVED, Supply, room_for_workers

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
"""How often a waiting process looks whether the one it waits for still lives."""


LEAVE = signal.SIGUSR1
"""Tells a worker to end. SIGTERM is ignored: whoever sends it to all processes means the training, which ends them."""
LAST_WORDS_SECONDS = 5.0
"""How long a worker that is told to end may take before it is killed."""


class LoaderError(RuntimeError):
    """A worker failed; the message holds its traceback."""


@dataclass(frozen=True)
class Outbox:
    """Where a worker puts its batches.

    Attributes:
        slots: the batches.
        count: slots.
        told: a queue of `("batch", slot)` in the order of the batches, and of errors.
        free: a semaphore, the number of slots that may be written.
    """

    slots: BatchSlots
    count: int
    told: Any
    free: Any


class BatchLoader:
    """Yields the batches of consecutive iterations; a context manager that owns its worker processes.

    Args:
        sampling: what batches look like; also says how many workers and how many batches ahead.
        start: the first iteration.

    Attributes:
        supply: how long the batches have been waited for.

    Workers are forked from a server process that has only imported what they need: they share neither CUDA nor threads
    with this process.
    """

    def __init__(self, sampling: Sampling, start: int) -> None:
        self.sampling = sampling
        self.start = start
        self.iteration = start
        self.supply = Supply()
        self._maker: SampleMaker | None = None
        self._workers: list[Any] = []
        self._outboxes: list[Outbox] = []

    @property
    def workers(self) -> int:
        """Processes that prepare batches now; 0 where this one does."""
        return len(self._workers)

    def __enter__(self) -> BatchLoader:
        workers = self.sampling.schedule.loader_workers
        if workers == 0:
            self._maker = SampleMaker(self.sampling).__enter__()
        else:
            self.use_workers(1 if workers == "auto" else workers)
        return self

    def use_workers(self, workers: int) -> None:
        """Let so many processes prepare the batches from here on; those that were prepared ahead are made again."""
        self.__exit__(None, None, None)
        self.start = self.iteration
        self.supply.restart()
        try:
            self._start(workers)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _start(self, workers: int) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload([f"{__package__}.samples"])
        ahead = max(1, self.sampling.schedule.loader_cache // workers)
        layout = batch_layout(self.sampling)
        with _interrupts_held_back(), _one_thread_each(), safe_search_path():
            for index in range(workers):
                outbox = Outbox(BatchSlots(layout, ahead), ahead, context.Queue(), context.Semaphore(ahead))
                job = (self.sampling, self.iteration + index, workers, outbox)
                worker = context.Process(target=_prepare_batches, args=job, daemon=True, name=f"loader-{index}")
                worker.start()
                self._outboxes.append(outbox)
                self._workers.append(worker)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._maker is not None:
            self._maker.__exit__(kind, error, traceback)
            self._maker = None
        for worker in self._workers:
            if worker.is_alive():
                os.kill(worker.pid, LEAVE)
        for worker, outbox in zip(self._workers, self._outboxes, strict=True):
            worker.join(timeout=LAST_WORDS_SECONDS)
            worker.kill()
            worker.join()
            outbox.told.close()
            outbox.told.cancel_join_thread()
            outbox.slots.close()
        self._workers, self._outboxes = [], []

    def next(self) -> Arrays:
        """The batch of the next iteration.

        Raises:
            UserError: the data cannot serve.
            LoaderError: a worker died or failed.
        """
        asked, ready = self.supply.now(), False
        if self._maker is not None:
            batch = self._maker.batch(self.iteration)
        else:
            index = (self.iteration - self.start) % len(self._workers)
            ready = not self._outboxes[index].told.empty()
            batch = self._receive(self._workers[index], self._outboxes[index])
        self.iteration += 1
        self.supply.handed_over(asked, ready)
        if self.sampling.schedule.loader_workers == "auto":
            self._use_more_workers_if_needed()
        return batch

    def _use_more_workers_if_needed(self) -> None:
        room, waiting = room_for_workers(), self.supply.waiting
        if self.workers < room and waiting is not None and waiting > STARVED:
            workers = min(room, self.supply.enough(self.workers))
            logger.info("waiting for data takes %.0f %% of the time; %d processes load it now", 100 * waiting, workers)
            self.use_workers(workers)

    def _receive(self, worker: Any, outbox: Outbox) -> Arrays:
        while True:
            try:
                kind, content = outbox.told.get(timeout=POLL_SECONDS)
                break
            except queue.Empty:
                if not worker.is_alive() and outbox.told.empty():
                    raise LoaderError(
                        f"{worker.name} died with exit code {worker.exitcode}; if that is -9, the machine ran out of "
                        "memory: lower training.loader_workers"
                    ) from None
        if kind == "user error":
            raise UserError(*content)
        if kind == "error":
            raise LoaderError(f"{worker.name} failed:\n{content}")
        batch = outbox.slots.read(content)
        outbox.free.release()
        return batch


def _prepare_batches(sampling: Sampling, start: int, step: int, outbox: Outbox) -> None:
    """A worker's life: batches start, start + step, … until it is killed, fails, or has no parent any more."""
    signal.signal(LEAVE, _leave)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        with SampleMaker(sampling) as maker:
            for made in itertools.count():
                batch = maker.batch(start + made * step)
                if not _has_room(outbox):
                    break
                outbox.slots.write(made % outbox.count, batch)
                outbox.told.put(("batch", made % outbox.count))
    except SystemExit:
        outbox.told.cancel_join_thread()
        raise
    except UserError as error:
        outbox.told.put(("user error", (error.what, error.where)))
    except Exception:
        outbox.told.put(("error", tracebacks.format_exc()))


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End with the clean-up that a killed process leaves undone."""
    sys.exit(0)


def _has_room(outbox: Outbox) -> bool:
    """Wait for a free slot; False if the parent died."""
    parent = mp.parent_process()
    while parent is not None and parent.is_alive():
        if outbox.free.acquire(timeout=POLL_SECONDS):
            return True
    outbox.told.cancel_join_thread()
    return False


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes started here never see Ctrl-C and SIGTERM: this process ends them after its checkpoint.

    Here they are late, not lost: a job may be told to end just while its workers start.
    """
    resource_tracker.ensure_running()  # if it started below, it would let the signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Numerical libraries of processes started here use one thread; the others are for the network."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(before)
