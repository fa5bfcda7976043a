"""Who works on a task: one small JSON file per worker, which tells what it is doing.

A worker writes over its file, in place and without waiting for the disk, when a block begins and when it ends; of
blocks that take less than a tenth of a second, five times a second. (A file that is replaced costs milliseconds on
ext4, which then flushes it.) Whoever reads it, the status or the driver when the worker has died, may find it a moment
old, and lost with the whole machine: nothing but messages and the count of tries depends on it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import writing
from ...small_files import Amount, Count, DamagedFile, Moment, ProcessId, read_json_as
from ..blocks.process import peak_memory
from ..blocks.stage import BlockTask

MEMORY_SECONDS = 0.5
"""How often a worker looks at its memory, which takes longer than writing its record."""
READ_TRIES = 3
WRITE_SECONDS, SHORT_BLOCK, MANY_BLOCKS = 0.2, 0.1, 20
"""How long a change may wait to be written when a worker has done many blocks, and they took less than this."""
SIGN_SECONDS = 10.0
"""How long a worker at work says nothing."""
ROOM = 2048
"""Bytes that a record takes at once: on a full disk, it must still be possible to change it."""

AT_WORK = "at work"
DONE = "done"


@dataclass
class WorkerRecord:
    """What a worker last said about itself.

    Attributes:
        worker: its name within the task: daisy's number, or another one if it was added by hand.
        host: machine it runs on, by its name in the cluster if it is a job.
        process: its process id there.
        job: its batch job; None if it is no job.
        log: path of what it prints; empty if that is the driver's output.
        began: when it began, in seconds since 1970; so are the other times.
        heard: when it said this.
        blocks: the blocks under way, those begun first in front: when each one began, by index.
        done, failed: blocks that it has finished.
        busy: seconds that these took; of blocks under way together, each counts its own.
        longest: seconds of the one that took longest.
        memory: its peak resident memory in bytes.
        state: `at work`, `done`, or why it left.
    """

    worker: str
    host: str
    process: ProcessId
    job: str | None
    log: str
    began: Moment
    heard: Moment
    blocks: dict[Count, Moment] = field(default_factory=dict)
    done: Count = 0
    failed: Count = 0
    busy: Amount = 0.0
    longest: Amount = 0.0
    memory: Count = 0
    state: str = AT_WORK

    @property
    def at_work(self) -> bool:
        """Whether it has not said that it left; it may have died since."""
        return self.state == AT_WORK

    @property
    def block(self) -> int | None:
        """Index of the block that has been under way longest; None between blocks."""
        return next(iter(self.blocks), None)

    @property
    def block_began(self) -> float:
        """When that one began; 0 between blocks."""
        return next(iter(self.blocks.values()), 0.0)


class WorkerRecordFile:
    """A worker's own record, and its file; threads of the worker may have blocks under way at the same time.

    Args:
        path: the file.
        record: what it says first.

    Attributes:
        record: what it says.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path, record: WorkerRecord) -> None:
        self.record = record
        self._lock = threading.Lock()
        self._length = ROOM
        self._begun: dict[int, float] = {}
        self._written = 0.0
        self._may_be_late = self._is_late = False
        self._looked_at_memory = -MEMORY_SECONDS
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            weakref.finalize(self, os.close, self._file)
            self._write()

    def begin(self, block: int) -> None:
        """A block is under way, beside those that are; not after the worker has left."""
        with self._lock:
            if self.record.at_work:
                self.record.blocks[block], self._begun[block] = time.time(), time.monotonic()
                self._write_soon()

    def end(self, block: int, success: bool) -> None:
        """A block under way is finished; not after the worker has left, which gave it back."""
        with self._lock:
            record = self.record
            if not record.at_work:
                return
            del record.blocks[block]
            seconds = time.monotonic() - self._begun.pop(block)
            record.done += success
            record.failed += not success
            record.busy += seconds
            record.longest = max(record.longest, seconds)
            if time.monotonic() - self._looked_at_memory >= MEMORY_SECONDS:
                record.memory, self._looked_at_memory = peak_memory(), time.monotonic()
            self._write_soon()

    def write_late(self) -> None:
        """From now on, write at most every `WRITE_SECONDS` while blocks are short.

        A thread writes what is late, and now and then when nothing changes, which shows that the worker lives.
        """
        self._may_be_late = True

        def write_what_is_late() -> None:
            while True:
                time.sleep(WRITE_SECONDS)
                with self._lock:
                    if self._is_late or time.monotonic() - self._written >= SIGN_SECONDS:
                        self._write()

        threading.Thread(target=write_what_is_late, daemon=True).start()

    def leave(self, state: str) -> None:
        """The worker ends; blocks still under way go back."""
        with self._lock:
            self.record = replace(self.record, blocks={}, state=state, memory=peak_memory())
            self._write()

    def _write_soon(self) -> None:
        """Write at once, so that a death in the block is known to be that; of many short blocks, now and then."""
        finished = self.record.done + self.record.failed
        short = finished >= MANY_BLOCKS and self.record.busy < SHORT_BLOCK * finished
        self._is_late = self._may_be_late and short and time.monotonic() - self._written < WRITE_SECONDS
        if not self._is_late:
            self._write()

    def _write(self) -> None:
        """Write over what the file held; spaces cover the rest of a longer text."""
        self.record.heard = time.time()
        text = json.dumps(vars(self.record)).encode()
        os.pwrite(self._file, text.ljust(self._length), 0)
        self._length = max(self._length, len(text))
        self._written, self._is_late = time.monotonic(), False


def open_worker_record(task: BlockTask, worker: str, job: str | None = None, log: str = "") -> WorkerRecordFile:
    """The record of a worker that begins, in place of an earlier one of the same name.

    Raises:
        UserError: the folder cannot be written.
    """
    now = time.time()
    record = WorkerRecord(worker, _this_machine(), os.getpid(), job, log, began=now, heard=now)
    return WorkerRecordFile(_record_path(task, worker), record)


def _this_machine() -> str:
    """The name that `sinfo` has for a node, so that users find it there; elsewhere what the machine calls itself."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def worker_records(task: BlockTask) -> list[WorkerRecord]:
    """The records of all workers that began since the driver did, by name."""
    return sorted(_records(task), key=lambda record: (len(record.worker), record.worker))


def read_worker_record(task: BlockTask, worker: str) -> WorkerRecord | None:
    """The record of one worker; None if it has not begun."""
    return _read(_record_path(task, worker))


def clear_worker_records(task: BlockTask) -> None:
    """Forget the workers of an earlier driver."""
    shutil.rmtree(worker_record_folder(task), ignore_errors=True)


def worker_record_folder(task: BlockTask) -> Path:
    """Where the workers of a task keep their records."""
    return task.folder / "workers"


def longest_block(task: BlockTask) -> float:
    """Seconds that the slowest block has taken so far; 0 if none is finished."""
    return max((record.longest for record in _records(task)), default=0.0)


def _records(task: BlockTask) -> Iterator[WorkerRecord]:
    records = (_read(path) for path in worker_record_folder(task).glob("*.json"))
    return (record for record in records if record is not None)


def _record_path(task: BlockTask, worker: str) -> Path:
    return worker_record_folder(task) / f"{worker}.json"


def _read(path: Path) -> WorkerRecord | None:
    for _ in range(READ_TRIES):
        try:
            return read_json_as(path, WorkerRecord)
        except DamagedFile:  # its worker is just writing it
            continue
    return None
