"""What a worker does: take blocks until there are none, and know which errors are worth another try."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import daisy.v2 as daisy

from ..blocks.grid import Block
from ..blocks.process import limit_threads
from ..blocks.stage import BlockFunction, BlockTask
from ..tracking.error_kinds import Trouble, pauses, trouble_of
from ..tracking.failures import Ending, KnownFailures, mark_success, record_failure
from ..tracking.worker_records import DONE, Attendance
from .daisy_client import Client, connected
from .numbering import Given, Numbering

logger = logging.getLogger(__name__)

TOLD_TO_STOP = "the stage ends early"
SUCCESS, FAILED = daisy.BlockStatus.SUCCESS, daisy.BlockStatus.FAILED
OUTSIDER = "-1"
"""Number of a worker that daisy did not start, and does not count among those that it did."""


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

    def may_go_on(self) -> None:
        """Called in both places by threads beside the main one.

        Raises:
            Leave: the worker is to take and begin no more blocks.
        """


@dataclass(frozen=True)
class Beside:
    """The attention of a thread beside the main one, which leaves when the main one does.

    Attributes:
        worker: that of the worker.
        over: the main thread has left before its time.
    """

    worker: Attention
    over: threading.Event

    def may_go_on(self) -> None:
        """Leave after the main thread, or where it would."""
        if self.over.is_set():
            raise Leave(TOLD_TO_STOP)
        self.worker.may_go_on()

    before_waiting = before_block = may_go_on


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
        with (
            OpenTask(task) as opened,
            _threads_beside(opened, attendance, attention),
            connected(daisy.Context.from_env()) as client,
        ):
            _take_blocks(opened, client, attendance, attention)
    except Leave as leave:
        state = str(leave)
    attendance.leave(state)
    return state


@contextlib.contextmanager
def _threads_beside(opened: OpenTask, attendance: Attendance, attention: Attention) -> Iterator[None]:
    """Threads that take blocks as the main one does, as many as the task wants besides.

    Each has a connection of its own, on which daisy watches over its block. To daisy they are outsiders: the worker
    lives as long as its main thread, which waits for them. When that leaves early, with an exception, they do so after
    the block under way. When it only gets no more blocks, one that was just given to them is not given back untried.
    """
    over = threading.Event()
    beside = Beside(attention, over)
    threads = [
        threading.Thread(target=_take_blocks_beside, args=(opened, attendance, beside), daemon=True)
        for _ in range(1, opened.task.blocks_in_flight)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    except BaseException:
        over.set()
        raise
    finally:
        for thread in threads:
            thread.join()


def _take_blocks_beside(opened: OpenTask, attendance: Attendance, attention: Attention) -> None:
    context = daisy.Context.from_env()
    context["worker_id"] = OUTSIDER
    try:
        with connected(context) as client:
            _take_blocks(opened, client, attendance, attention)
    except Leave:
        return
    except BaseException:  # as it would end the main thread
        traceback.print_exc()
        os._exit(1)


def _take_blocks(opened: OpenTask, client: Client, attendance: Attendance, attention: Attention) -> None:
    """Give every block back to daisy: as a success, or as a failure, which includes those that were not tried."""
    leave: Leave | None = None
    books = Books(opened.task, attendance)
    while leave is None:
        if books.ending.reason() is not None:
            raise Leave(TOLD_TO_STOP)
        attention.before_waiting()
        given = client.acquire_block()
        if given is None:
            return
        try:
            block = books.begin(given)  # first: a signal from here on finds the block under way
            attention.before_block()
            success = attempt(opened, books, block)
            books.end(block, success)
        except Leave as told:  # no error of the block
            success, leave = False, told
        except BaseException:
            given.status = FAILED
            client.report_failure(given, traceback.format_exc())
            raise
        given.status = SUCCESS if success else FAILED
        client.release_block(given)
    raise leave


class Books:
    """What is noted of each block of a worker, from when it is given until it goes back; several may be under way.

    All of it costs some microseconds per block while nothing fails: a block may be that short.

    Args:
        task: whose blocks.
        attendance: the worker's entry in the roster.

    Attributes:
        ending: whether the task is to end early.
    """

    def __init__(self, task: BlockTask, attendance: Attendance) -> None:
        self.task = task
        self._grid, self._attendance = task.grid, attendance
        self._numbering = Numbering(task)
        self.ending, self._failures = Ending(task), KnownFailures(task)
        self._told_of_success = False

    def begin(self, given: Given) -> Block:
        """A block is under way, from now on in the roster: the one that daisy gave."""
        index = self._numbering.index_of(given)
        self._attendance.begin(index)
        return self._grid.block(index)

    def may_be_tried(self, block: Block) -> bool:
        """Whether a block is worth a try: its task goes on, and it has not failed for good."""
        if self._failures.all_well():
            return True
        return self.ending.reason() is None and not self._failures.are_for_good(block)

    def note_failure(self, block: Block, error: Exception, trouble: Trouble) -> None:
        """A block failed: leave the error for the driver, and have the stage end if going on is of no use."""
        record_failure(self.task, block, error, trouble)
        self.ending.look_again()

    def note_success(self, block: Block) -> None:
        """A block is stored; once is enough to tell all workers that blocks succeed."""
        if not self._failures.all_well():
            self._failures.forget(block)
        if not self._told_of_success:
            mark_success(self.task)
            self._told_of_success = True

    def end(self, block: Block, success: bool) -> None:
        """A block is not under way any more, and goes back to daisy."""
        self._attendance.end(block.index, success)


class OpenTask:
    """A task with everything open that its blocks need: from the first block on, and anew after it was abandoned."""

    def __init__(self, task: BlockTask) -> None:
        self.task = task
        self._stack = contextlib.ExitStack()
        self._process_block: BlockFunction | None = None
        self._opening = threading.Lock()

    def __enter__(self) -> OpenTask:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def process(self, block: Block) -> None:
        """Compute and store a block."""
        (self._process_block or self._opened())(block)

    def _opened(self) -> BlockFunction:
        with self._opening:
            if self._process_block is None:
                self._process_block = self._stack.enter_context(self.task.process())
                limit_threads(self.task.run.config.cluster.threads_per_worker)
            return self._process_block

    def close(self) -> None:
        """Close files and connections."""
        self._process_block = None
        self._stack.close()

    def abandon(self) -> None:
        """Close what can be closed; a connection that is lost cannot. What other threads still use is left to them."""
        with self._opening:
            if self.task.blocks_in_flight == 1:
                with contextlib.suppress(Exception):
                    self._stack.close()
            self._stack, self._process_block = contextlib.ExitStack(), None


def attempt(opened: OpenTask, books: Books, block: Block) -> bool:
    """Compute one block, waiting for trouble to pass; whether it succeeded. The error is left for the driver."""
    if not books.may_be_tried(block):
        return False
    waits: Iterator[float] | None = None
    while True:
        try:
            opened.process(block)
        except Exception as error:
            trouble = trouble_of(error)
            waits = waits or _waits(opened.task, block)
            pause = next(waits, None) if trouble is Trouble.PASSING else None
            if pause is None:
                books.note_failure(block, error, trouble)
                return False
            logger.warning("block %d: %s; once more in %.1f s", block.index, error, pause)
            opened.abandon()
            time.sleep(pause)
        else:
            books.note_success(block)
            return True


def _waits(task: BlockTask, block: Block) -> Iterator[float]:
    """Seconds before each further try of a block in trouble that passes."""
    return pauses(task.run.config.cluster, f"{task.run.config.seed} {task.name} {block.index}")
