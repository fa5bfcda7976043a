"""What a worker does: take blocks until there are none, and know which errors are worth another try."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import daisy.v2 as daisy
from numcodecs import blosc

from .failures import failed_for_good, forget_failure, mark_success, reason_to_end, record_failure
from .grid import Block
from .stage import BlockFunction, BlockTask
from .tracking import record_memory
from .trouble import Trouble, pauses, trouble_of

logger = logging.getLogger(__name__)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
ENDED_EARLY = 3
"""Exit status of a worker that was told to stop; daisy gives the task up after `cluster.worker_restarts` of them."""
PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


def work(task: BlockTask, driver: int) -> None:
    """The life of a worker process. A block that raises is reported as failed; the worker goes on with the next one.

    Args:
        task: whose blocks it computes.
        driver: process id of the driver, with which it dies.
    """
    die_with(driver)
    if reason_to_end(task) is not None:
        sys.exit(ENDED_EARLY)
    client = daisy.Client()
    with contextlib.closing(OpenTask(task)) as opened:
        while True:
            with client.acquire_block() as block:
                if block is None:
                    record_memory(task)
                    return
                if not attempt(opened, task.grid.block_of(block.write_roi)):
                    block.status = daisy.BlockStatus.FAILED
            if reason_to_end(task) is not None:
                sys.exit(ENDED_EARLY)


class OpenTask:
    """A task with everything open that its blocks need: from the first block on, and anew after it was closed."""

    def __init__(self, task: BlockTask) -> None:
        self.task = task
        self._stack = contextlib.ExitStack()
        self._process_block: BlockFunction | None = None
        self._succeeded = False

    def process(self, block: Block) -> None:
        """Compute and store a block."""
        if self._process_block is None:
            self._process_block = self._stack.enter_context(self.task.process())
            limit_threads(self.task.run.config.cluster.threads_per_worker)
        self._process_block(block)

    def note_success(self) -> None:
        """Tell all workers that blocks succeed; once is enough."""
        if not self._succeeded:
            mark_success(self.task)
            self._succeeded = True

    def close(self) -> None:
        """Close files and connections."""
        self._process_block = None
        self._stack.close()

    def abandon(self) -> None:
        """Close what can be closed; a connection that is lost cannot."""
        with contextlib.suppress(Exception):
            self.close()
        self._stack, self._process_block = contextlib.ExitStack(), None


def attempt(opened: OpenTask, block: Block) -> bool:
    """Compute one block, waiting for trouble to pass; whether it succeeded. The error is left for the driver."""
    task = opened.task
    if reason_to_end(task) is not None or failed_for_good(task, block):
        return False
    waits = pauses(task.run.config.cluster, f"{task.run.config.seed} {task.name} {block.index}")
    while True:
        try:
            opened.process(block)
        except Exception as error:
            trouble = trouble_of(error)
            pause = next(waits, None) if trouble is Trouble.PASSING else None
            if pause is None:
                record_failure(task, block, error, trouble)
                return False
            logger.warning("block %d: %s; once more in %.1f s", block.index, error, pause)
            opened.abandon()
            time.sleep(pause)
        else:
            forget_failure(task, block)
            opened.note_success()
            return True


def die_with(parent: int) -> None:
    """End this process when the driver ends, however it does: a worker alone would write where others write by then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def limit_threads(threads: int) -> None:
    """Keep the numerical libraries of this process to a number of threads."""
    blosc.set_nthreads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


@contextlib.contextmanager
def thread_environment(threads: int) -> Iterator[None]:
    """Let processes that are started inside inherit a number of threads."""
    former = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
