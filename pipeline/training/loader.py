"""Batches prepared ahead by worker processes, handed out in the order of the iterations.

Worker k of n makes the batches k, k + n, k + 2n, … and puts them into its own bounded queue, so that reading the queues
in turn restores the order. Since a batch is a pure function of its iteration, the number of workers changes nothing.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
import signal
import threading
import traceback as tracebacks
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from ..errors import UserError
from .samples import Arrays, SampleMaker, Sampling

POLL_SECONDS = 2.0
"""How often a waiting process looks whether the one it waits for still lives."""


class LoaderError(RuntimeError):
    """A worker failed; the message holds its traceback."""


class BatchLoader:
    """Yields the batches of consecutive iterations; a context manager that owns its worker processes.

    Args:
        sampling: what batches look like; also says how many workers and how many batches ahead.
        start: the first iteration.

    Workers are spawned, not forked: they share neither CUDA nor threads with this process.
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
        context = mp.get_context("spawn")
        ahead = max(1, self.sampling.schedule.loader_cache // workers)
        with _interrupts_ignored(), _one_thread_each():
            for index in range(workers):
                batches = context.Queue(maxsize=ahead)
                job = (self.sampling, self.iteration + index, workers, batches, os.getpid())
                worker = context.Process(target=_prepare_batches, args=job, daemon=True, name=f"loader-{index}")
                self._queues.append(batches)
                self._workers.append(worker)
                worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._maker is not None:
            self._maker.__exit__(kind, error, traceback)
            self._maker = None
        for worker in self._workers:
            worker.kill()
        for worker, batches in zip(self._workers, self._queues, strict=True):
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


def _prepare_batches(sampling: Sampling, start: int, step: int, batches: Any, parent: int) -> None:
    """A worker's life: batches start, start + step, … until it is killed, fails, or has no parent any more."""
    iteration = start
    try:
        with SampleMaker(sampling) as maker:
            while _put(batches, ("batch", maker.batch(iteration)), parent):
                iteration += step
    except UserError as error:
        _put(batches, ("user error", (error.what, error.where)), parent)
    except Exception:
        _put(batches, ("error", tracebacks.format_exc()), parent)


def _put(batches: Any, item: tuple[str, Any], parent: int) -> bool:
    """Whether the item was handed over; False if the parent died."""
    while os.getppid() == parent:
        try:
            batches.put(item, timeout=POLL_SECONDS)
        except queue.Full:
            continue
        return True
    batches.cancel_join_thread()
    return False


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started here ignore Ctrl-C: their parent ends them after its checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Numerical libraries of processes started here use one thread; the others are for the network."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                with suppress(KeyError):
                    del os.environ[name]
            else:
                os.environ[name] = value
