"""What a worker does: take blocks until there are none, and know which errors are worth another try."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Protocol

import daisy.v2 as daisy
from numcodecs import blosc

from .failures import failed_for_good, forget_failure, mark_success, reason_to_end, record_failure
from .grid import Block
from .roster import DONE, Attendance
from .stage import BlockFunction, BlockTask
from .trouble import Trouble, pauses, trouble_of

logger = logging.getLogger(__name__)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
TOLD_TO_STOP = "the stage ends early"


class Leave(BaseException):
    """The worker is to give back the block under way, untried, and end; its text says why.

    Not an `Exception`: code that handles the errors of a block must not take it for one.
    """


class Attention(Protocol):
    """Who tells a worker to leave."""

    def before_waiting(self) -> None:
        """Called when the worker is about to ask for a block, which may take long.

        Raises:
            Leave: it is not to take another one.
        """

    def before_block(self) -> None:
        """Called when it has one.

        Raises:
            Leave: it is not to begin it.
        """


def compute_blocks(task: BlockTask, attendance: Attendance, attention: Attention) -> str:
    """The life of a worker: blocks, until there are none or it is to leave. A block that raises is reported as failed.

    Args:
        task: whose blocks it computes; `DAISY_CONTEXT` says where the scheduler is.
        attendance: its entry in the roster.
        attention: who tells it to leave.

    Returns:
        What it says when it leaves.
    """
    state = DONE
    try:
        _take_blocks(task, daisy.Client(), attendance, attention)
    except Leave as leave:
        state = str(leave)
    attendance.leave(state)
    return state


def _take_blocks(task: BlockTask, client: daisy.Client, attendance: Attendance, attention: Attention) -> None:
    leave: Leave | None = None
    with contextlib.closing(OpenTask(task)) as opened:
        while leave is None:
            if reason_to_end(task) is not None:
                raise Leave(TOLD_TO_STOP)
            attention.before_waiting()
            with client.acquire_block() as block:
                if block is None:
                    return
                try:
                    attention.before_block()
                    attendance.begin(index := task.grid.block_of(block.write_roi).index)
                    success = attempt(opened, task.grid.block(index))
                    attendance.end(index, success)
                except Leave as told:  # seen by daisy, it would become the error of the block
                    success, leave = False, told
                if not success:
                    block.status = daisy.BlockStatus.FAILED
        raise leave


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


def limit_threads(threads: int) -> None:
    """Keep the numerical libraries of this process to a number of threads."""
    blosc.set_nthreads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that keep the numerical libraries of a new process to a number of threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


@contextlib.contextmanager
def thread_environment(threads: int) -> Iterator[None]:
    """Let processes that are started inside inherit a number of threads."""
    former = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(thread_variables(threads))
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
