"""What a worker does: take blocks until there are none, and know which errors are worth another try."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import daisy.v2 as daisy

from ...volumes import Box, limit_storage_threads
from ..blocks.grid import Block
from ..blocks.process import limit_threads
from ..blocks.stage import BlockFunction, BlockTask
from ..tracking.error_kinds import ErrorKind, kind_of, pauses
from ..tracking.failures import Ending, failed_for_good, forget_failure, mark_success, record_failure
from ..tracking.worker_records import DONE, WorkerRecordFile

logger = logging.getLogger(__name__)

STAGE_ENDS_EARLY = "the stage ends early"
SUCCESS, FAILED = daisy.BlockStatus.SUCCESS, daisy.BlockStatus.FAILED
OUTSIDER = "-1"
"""Number of a worker that daisy did not start, and does not count among those that it did."""

StopReason = Callable[[], str | None]
"""Says why a worker is to begin no more blocks; None while it is to go on."""
Vouch = Callable[[str, int], None]
"""Told of each connection to the scheduler, by address and port, before it is used."""


def compute_blocks(
    task: BlockTask, record: WorkerRecordFile, stop_reason: StopReason, vouch: Vouch = lambda address, port: None
) -> str:
    """Compute blocks until there are none, or the worker is to stop. A block that raises is reported as failed.

    Args:
        task: whose blocks; `DAISY_CONTEXT` says where the scheduler is.
        record: of the worker.
        stop_reason: asked before and after the worker waits for a block.
        vouch: has the driver let the connections to the scheduler through.

    Returns:
        `done`, or why it stopped.
    """
    log = BlockLog(task, record)
    with OpenTask(task) as opened, _extra_threads(opened, log, stop_reason, vouch) as stop_threads:
        state = _take_blocks(opened, _client(vouch), log, stop_reason)
        if state != DONE:
            stop_threads.set()
    return state


@contextlib.contextmanager
def _extra_threads(opened: OpenTask, log: BlockLog, stop_reason: StopReason, vouch: Vouch) -> Iterator[threading.Event]:
    """Threads that take blocks as the main one does, as many as the task wants besides.

    Each has a connection of its own, on which daisy watches over its block. To daisy they are outsiders: the worker
    lives as long as its main thread, which waits for them. The event makes them end after the block under way; it is
    set when the main thread stops early. When that only gets no more blocks, one that was just given to another thread
    is computed all the same.
    """
    stop = threading.Event()

    def thread_stop_reason() -> str | None:
        return STAGE_ENDS_EARLY if stop.is_set() else stop_reason()

    threads = [
        threading.Thread(target=_take_blocks_beside, args=(opened, log, thread_stop_reason, vouch), daemon=True)
        for _ in range(1, opened.task.blocks_in_flight)
    ]
    for thread in threads:
        thread.start()
    try:
        yield stop
    except BaseException:
        stop.set()
        raise
    finally:
        for thread in threads:
            thread.join()


def _client(vouch: Vouch, worker: str | None = None) -> daisy.Client:
    """A connection to the scheduler that it listens to; under another number than the worker's, if one is given."""
    context = daisy.Context.from_env()
    if worker is not None:
        context["worker_id"] = worker
    client = daisy.Client(context)
    vouch(context["hostname"], int(context["port"]))
    return client


def _take_blocks_beside(opened: OpenTask, log: BlockLog, stop_reason: StopReason, vouch: Vouch) -> None:
    try:
        _take_blocks(opened, _client(vouch, OUTSIDER), log, stop_reason)
    except BaseException:  # as it would end the main thread
        traceback.print_exc()
        os._exit(1)


def _take_blocks(opened: OpenTask, client: daisy.Client, log: BlockLog, stop_reason: StopReason) -> str:
    """Give every block back to daisy: as a success, or as a failure, which includes those that were not tried."""
    while True:
        reason = STAGE_ENDS_EARLY if opened.ending.reason() is not None else stop_reason()
        if reason is not None:
            return reason
        with client.acquire_block() as given:
            if given is None:
                return DONE
            reason = stop_reason()  # waiting may have taken long
            if reason is not None:
                given.status = FAILED
                return reason
            block = log.begin(given)
            success = attempt(opened, block)
            given.status = SUCCESS if success else FAILED
        log.end(block, success)


class BlockLog:
    """What is noted of each block of a worker, from when it is given until it went back; several may be under way.

    Args:
        task: whose blocks.
        record: of the worker.
    """

    def __init__(self, task: BlockTask, record: WorkerRecordFile) -> None:
        self._grid, self._record = task.grid, record

    def begin(self, given: daisy.Block) -> Block:
        """A block is under way, and from now on in the worker's record: the one that daisy gave."""
        region = given.write_roi
        block = Block(self._grid.index_of(region.begin), Box(region.begin, region.end))
        self._record.begin(block.index)
        return block

    def end(self, block: Block, success: bool) -> None:
        """A block is not under way any more."""
        self._record.end(block.index, success)


class OpenTask:
    """A task with everything open that its blocks need: from the first block on, and anew after it was abandoned.

    Attributes:
        task: the task.
        ending: whether it is to end early.
    """

    def __init__(self, task: BlockTask) -> None:
        self.task, self.ending = task, Ending(task)
        self._any_success = False
        self._stack = contextlib.ExitStack()
        self._process_block: BlockFunction | None = None
        self._opening = threading.Lock()

    def __enter__(self) -> OpenTask:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def process(self, block: Block) -> None:
        """Compute and store a block.

        Raises:
            TypeError: the stage leaves no record of its blocks, which then never would count as done.
        """
        (self._process_block or self._opened())(block)
        if not self._any_success and self.task.keeps_records and not self.task.records.has(block.index):
            raise TypeError(
                f"the stage {type(self.task).__name__} left no record of block {block.index}: write it with "
                "open_output(), or note its checksum with records.write"
            )

    def _opened(self) -> BlockFunction:
        with self._opening:
            if self._process_block is None:
                threads = self.task.run.config.cluster.threads_per_worker
                limit_storage_threads(threads)  # of arrays that are opened from here on
                self._process_block = self._stack.enter_context(self.task.process())
                limit_threads(threads)  # of libraries that are loaded by now
            return self._process_block

    def note_success(self, block: Block) -> None:
        """A block is stored; one is enough to tell all workers that blocks succeed."""
        forget_failure(self.task, block)
        if not self._any_success:
            mark_success(self.task)
            self._any_success = True

    def note_failure(self, block: Block, error: Exception, kind: ErrorKind) -> None:
        """A block has failed: leave the error for the driver, and have the stage end if going on is of no use."""
        record_failure(self.task, block, error, kind)
        self.ending.look_again()

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


def attempt(opened: OpenTask, block: Block) -> bool:
    """Compute one block, again after transient errors; whether it succeeded. The error is left for the driver."""
    task = opened.task
    if opened.ending.reason() is not None or failed_for_good(task, block):
        return False
    waits: Iterator[float] | None = None
    while True:
        try:
            opened.process(block)
        except Exception as error:
            kind = kind_of(error)
            waits = waits or pauses(task.run.config.cluster, f"{task.run.config.seed} {task.name} {block.index}")
            pause = next(waits, None) if kind is ErrorKind.TRANSIENT else None
            if pause is None:
                opened.note_failure(block, error, kind)
                return False
            logger.warning("block %d: %s; once more in %.1f s", block.index, error, pause)
            opened.abandon()
            time.sleep(pause)
        else:
            opened.note_success(block)
            return True
