"""Batches prepared ahead by the worker processes of a torch `DataLoader`, handed out in the order of the iterations.

A batch is a pure function of its iteration, so the number of workers changes no batch, and may change while a training
runs. Batches come in shared memory: handing one over costs as much as reading it once.
"""

from __future__ import annotations

import logging
import multiprocessing as mp
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ...errors import UserError
from .samples import Arrays, SampleMaker, Sampling
from .waiting import STARVED, Supply, room_for_workers

logger = logging.getLogger(__name__)

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLOSC_NTHREADS": "1",
    "PYTHONSAFEPATH": "1",
}
"""Variables of processes that load batches: numerical libraries use one thread, since the other cores are for the
network, and modules are never imported from the working directory."""


class LoaderError(RuntimeError):
    """A worker died or failed; the message holds its traceback."""


@dataclass
class Made:
    """A batch from a worker.

    Attributes:
        tensors: the arrays of the batch, in shared memory.
        at: when it was made, in seconds of `time.monotonic`, which the processes of a machine share.
    """

    tensors: dict[str, torch.Tensor]
    at: float


class BatchDataset(Dataset[Made | UserError]):
    """Item i is the batch of iteration i, or the user's mistake that prevents it.

    Args:
        sampling: what batches look like.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._maker: SampleMaker | None = None

    def __getitem__(self, iteration: int) -> Made | UserError:
        try:
            if self._maker is None:
                self._maker = SampleMaker(self.sampling).__enter__()
            batch = self._maker.batch(iteration)
        except UserError as error:
            return error
        return Made({name: torch.from_numpy(array) for name, array in batch.items()}, time.monotonic())


class BatchLoader:
    """Yields the batches of consecutive iterations; a context manager that owns its worker processes.

    Workers are forked from a server process that has only imported what they need: they share neither CUDA nor threads
    with this process. They end with it, however it ends.

    Args:
        sampling: what batches look like; also says how many workers and how many batches ahead.
        start: the first iteration.

    Attributes:
        supply: how long the batches have been waited for.
        workers: processes that prepare batches now; 0 where this one does.
    """

    def __init__(self, sampling: Sampling, start: int) -> None:
        self.sampling = sampling
        self.iteration = start
        self.workers = 0
        self.supply = Supply(time.monotonic)
        self._maker: SampleMaker | None = None
        self._batches: Any = None

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
        self.supply.restart()
        context = mp.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        loader = DataLoader(
            BatchDataset(self.sampling),
            batch_size=None,
            sampler=range(self.iteration, sys.maxsize),
            num_workers=workers,
            collate_fn=_unchanged,
            prefetch_factor=max(1, self.sampling.schedule.loader_cache // workers),
            multiprocessing_context=context,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # the training's own draws must not depend on the number of workers
        )
        with _environment_of_workers(), _signals_blocked():
            self._batches = iter(loader)
        self.workers = workers

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._maker is not None:
            self._maker.__exit__(kind, error, traceback)
            self._maker = None
        if self._batches is not None:
            self._batches._shutdown_workers()  # torch itself would leave it to the garbage collector
            for worker in self._batches._workers:
                worker.kill()
                worker.join()
            self._batches = None

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
            made = self._receive()
            ready = made.at <= asked
            batch = {name: tensor.numpy() for name, tensor in made.tensors.items()}
        self.iteration += 1
        self.supply.handed_over(asked, ready)
        if self.sampling.schedule.loader_workers == "auto":
            self._use_more_workers_if_needed()
        return batch

    def _receive(self) -> Made:
        try:
            made: Made | UserError = next(self._batches)
        except Exception as error:
            raise LoaderError(
                "a process that loads batches failed. If it was killed, memory ran out: lower training.loader_workers "
                f"and training.loader_cache, or give the container more shared memory (/dev/shm). {error}"
            ) from error
        if isinstance(made, UserError):
            raise made
        return made

    def _use_more_workers_if_needed(self) -> None:
        room, waiting = room_for_workers(), self.supply.waiting
        if self.workers < room and waiting is not None and waiting > STARVED:
            workers = min(room, self.supply.enough(self.workers))
            logger.info("waiting for data takes %.0f %% of the time; %d processes load it now", 100 * waiting, workers)
            self.use_workers(workers)


def _unchanged(made: Any) -> Any:
    """Batches are made whole; there is nothing to collate."""
    return made


def _start_worker(index: int) -> None:
    """Prepare a worker process: it ends with the training, and not before.

    Ctrl-C and SIGTERM are ignored: whoever sends them to all processes means the training, which still takes a step and
    a checkpoint.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    training = mp.parent_process()
    assert training is not None
    threading.Thread(target=_end_with, args=(training.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """End this process when another has ended."""
    connection.wait([sentinel])
    os._exit(1)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Ctrl-C and SIGTERM reach this process after the block, and processes started inside it never.

    A job may be told to end just while its workers start.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment_of_workers() -> Iterator[None]:
    """Processes started inside the block have the variables of `WORKER_ENVIRONMENT`."""
    before = {name: os.environ[name] for name in WORKER_ENVIRONMENT if name in os.environ}
    os.environ.update(WORKER_ENVIRONMENT)
    try:
        resource_tracker.ensure_running()  # starting it unblocks signals, so not later
        yield
    finally:
        for name in WORKER_ENVIRONMENT:
            del os.environ[name]
        os.environ.update(before)
