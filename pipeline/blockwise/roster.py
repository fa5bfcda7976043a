"""Who works on a task: one small file per worker, which tells what it is doing.

A worker writes its entry over the former one, in place and without waiting for the disk: it costs microseconds per
block. Whoever reads it (the status page, or the driver when the worker has died) may find it a moment old, and lost
after the loss of a whole machine; nothing but messages and the count of tries depends on it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..errors import UserError
from .memory import peak_memory
from .stage import BlockTask

ENTRY_BYTES = 2048
"""Entries are padded to this length, so that a shorter one leaves nothing of a longer one."""

AT_WORK = "at work"
DONE = "done"


@dataclass(frozen=True)
class Entry:
    """What a worker last said about itself.

    Attributes:
        worker: its name within the task: daisy's number, or another one if it was added by hand.
        host: machine it runs on, by its name in the cluster if it is a job.
        process: its process id there.
        job: its batch job; None if it is no job.
        log: path of what it prints; empty if that is the driver's output.
        began: when it began, in seconds since 1970; so are the other times.
        heard: when it wrote this.
        block: index of the block under way; None between blocks.
        block_began: when that one began; 0 between blocks.
        done, failed: blocks that it has finished.
        busy: seconds that these took.
        longest: seconds of the one that took longest.
        memory: its peak resident memory in bytes.
        state: `at work`, `done`, or why it left.
    """

    worker: str
    host: str
    process: int
    job: str | None
    log: str
    began: float
    heard: float
    block: int | None = None
    block_began: float = 0.0
    done: int = 0
    failed: int = 0
    busy: float = 0.0
    longest: float = 0.0
    memory: int = 0
    state: str = AT_WORK

    @property
    def at_work(self) -> bool:
        """Whether it has not said that it left; it may have died since."""
        return self.state == AT_WORK


@dataclass
class Attendance:
    """A worker's own entry, kept up to date by itself."""

    path: Path
    entry: Entry
    _file: int = field(init=False)

    def __post_init__(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", str(self.path)) from error
        self._write()

    def begin(self, block: int) -> None:
        """A block is under way."""
        self.entry = replace(self.entry, block=block, block_began=time.time())
        self._write()

    def end(self, success: bool) -> None:
        """The block under way is finished."""
        entry = self.entry
        seconds = time.time() - entry.block_began
        self.entry = replace(
            entry,
            block=None,
            block_began=0.0,
            done=entry.done + success,
            failed=entry.failed + (not success),
            busy=entry.busy + seconds,
            longest=max(entry.longest, seconds),
            memory=peak_memory(),
        )
        self._write()

    def leave(self, state: str) -> None:
        """The worker ends; a block still under way goes back."""
        self.entry = replace(self.entry, block=None, block_began=0.0, state=state, memory=peak_memory())
        self._write()

    def _write(self) -> None:
        self.entry = replace(self.entry, heard=time.time())
        text = json.dumps(asdict(self.entry)).encode()
        os.pwrite(self._file, text.ljust(ENTRY_BYTES), 0)


def attend(task: BlockTask, worker: str, job: str | None = None, log: str = "") -> Attendance:
    """Enter a worker that begins, in place of an earlier one of the same name.

    Raises:
        UserError: the folder cannot be written.
    """
    now = time.time()
    return Attendance(
        roster_folder(task) / f"{worker}.json",
        Entry(worker, _this_machine(), os.getpid(), job, log, began=now, heard=now),
    )


def _this_machine() -> str:
    """The name that `sinfo` has for a node, so that users find it there; elsewhere what the machine calls itself."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def read_roster(task: BlockTask) -> list[Entry]:
    """The entries of all workers that began since the driver did, by name."""
    return sorted(_entries(task), key=lambda entry: (len(entry.worker), entry.worker))


def read_entry(task: BlockTask, worker: str) -> Entry | None:
    """The entry of one worker; None if it has not begun, or is writing just now."""
    return _read(roster_folder(task) / f"{worker}.json")


def clear_roster(task: BlockTask) -> None:
    """Forget the workers of an earlier driver."""
    shutil.rmtree(roster_folder(task), ignore_errors=True)


def roster_folder(task: BlockTask) -> Path:
    """Where the workers of a task keep their entries."""
    return task.folder / "workers"


def most_memory(task: BlockTask) -> int:
    """Bytes of the worker that needed most; 0 if none has finished a block."""
    return max((entry.memory for entry in _entries(task)), default=0)


def longest_block(task: BlockTask) -> float:
    """Seconds that the slowest block has taken so far; 0 if none is finished."""
    return max((entry.longest for entry in _entries(task)), default=0.0)


def _entries(task: BlockTask) -> Iterator[Entry]:
    entries = (_read(path) for path in roster_folder(task).glob("*.json"))
    return (entry for entry in entries if entry is not None)


def _read(path: Path) -> Entry | None:
    try:
        return Entry(**json.loads(path.read_text()))
    except (OSError, ValueError):
        return None
