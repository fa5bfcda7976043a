"""Batches prepared ahead by worker processes, handed out in the order of the iterations.

Worker k of n makes the batches k, k + n, k + 2n, … and puts them into its own bounded queue, so that reading the queues
in turn restores the order. Since a batch is a pure function of its iteration, the number of workers changes nothing.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
import signal
import sys
import traceback as tracebacks
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import Any, NoReturn

from ..errors import UserError
from .samples import Arrays, SampleMaker, Sampling

POLL_SECONDS = 2.0
"""How often a waiting process looks whether the one it waits for still lives."""


LEAVE = signal.SIGUSR1
"""Tells a worker to end. SIGTERM is ignored: whoever sends it to all processes means the training, which ends them."""
LAST_WORDS_SECONDS = 5.0
"""How long a worker that is told to end may take before it is killed."""


class LoaderError(RuntimeError):
    """A worker failed; the message holds its traceback."""


class BatchLoader:
    """Yields the batches of consecutive iterations; a context manager that owns its worker processes.

    Args:
        sampling: what batches look like; also says how many workers and how many batches ahead.
        start: the first iteration.

    Workers are forked from a server process that has only imported what they need: they share neither CUDA nor threads
    with this process.
    """

    def __init__(self, sampling: Sampling, start: int) -> None:
        self.sampling = sampling
        self.start = start
        self.iteration = start
        self._maker: SampleMaker | None = None
        self._workers: list[Any] = []
        self._queues: list[Any] = []

    def __enter__(self) -> BatchLoader:
        workers = self.sampling.schedule.loader_workers
        if workers == 0:
            self._maker = SampleMaker(self.sampling).__enter__()
            return self
        try:
            self._start(workers)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self, workers: int) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload([f"{__package__}.samples"])
        ahead = max(1, self.sampling.schedule.loader_cache // workers)
        with _interrupts_held_back(), _one_thread_each():
            for index in range(workers):
                batches = context.Queue(maxsize=ahead)
                job = (self.sampling, self.iteration + index, workers, batches)
                worker = context.Process(target=_prepare_batches, args=job, daemon=True, name=f"loader-{index}")
                worker.start()
                self._queues.append(batches)
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
        for worker, batches in zip(self._workers, self._queues, strict=True):
            worker.join(timeout=LAST_WORDS_SECONDS)
            worker.kill()
            worker.join()
            batches.close()
            batches.cancel_join_thread()
        self._workers, self._queues = [], []

    def next(self) -> Arrays:
        """The batch of the next iteration.

        Raises:
            UserError: the data cannot serve.
            LoaderError: a worker died or failed.
        """
        if self._maker is not None:
            batch = self._maker.batch(self.iteration)
        else:
            batch = self._receive((self.iteration - self.start) % len(self._workers))
        self.iteration += 1
        return batch

    def _receive(self, index: int) -> Arrays:
        worker, batches = self._workers[index], self._queues[index]
        while True:
            try:
                kind, content = batches.get(timeout=POLL_SECONDS)
                break
            except queue.Empty:
                if not worker.is_alive() and batches.empty():
                    raise LoaderError(
                        f"{worker.name} died with exit code {worker.exitcode}; if that is -9, the machine ran out of "
                        "memory: lower training.loader_workers"
                    ) from None
        if kind == "user error":
            raise UserError(*content)
        if kind == "error":
            raise LoaderError(f"{worker.name} failed:\n{content}")
        return dict(content)


def _prepare_batches(sampling: Sampling, start: int, step: int, batches: Any) -> None:
    """A worker's life: batches start, start + step, … until it is killed, fails, or has no parent any more."""
    iteration = start
    signal.signal(LEAVE, _leave)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        with SampleMaker(sampling) as maker:
            while _put(batches, ("batch", maker.batch(iteration))):
                iteration += step
    except SystemExit:
        batches.cancel_join_thread()
        raise
    except UserError as error:
        _put(batches, ("user error", (error.what, error.where)))
    except Exception:
        _put(batches, ("error", tracebacks.format_exc()))


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End with the clean-up that a killed process leaves undone."""
    sys.exit(0)


def _put(batches: Any, item: tuple[str, Any]) -> bool:
    """Whether the item was handed over; False if the parent died."""
    parent = mp.parent_process()
    while parent is not None and parent.is_alive():
        try:
            batches.put(item, timeout=POLL_SECONDS)
        except queue.Full:
            continue
        return True
    batches.cancel_join_thread()
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
