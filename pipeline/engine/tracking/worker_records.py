"""Who works on a task: one small file per worker, which tells what it is doing.

A worker writes its entry over the former one, in place and without waiting for the disk, and where the file system lets
files be mapped, without a system call: it costs microseconds per block. Whoever reads it (the status page, or the
driver when the worker has died) may find it a moment old, and lost after the loss of a whole machine; nothing but
messages and the count of tries depends on it.
"""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import UserError
from ..blocks.process import peak_memory
from ..blocks.stage import BlockTask
from .worker_record_format import AT_WORK, DONE, MOST_UNDER_WAY, RECORDS_BYTES, Entry

MEMORY_SECONDS = 0.5
"""How often a worker looks how much memory it has taken: that takes as long as a dozen writes of its entry."""
READ_TRIES = 3
"""Reading an entry again helps if its worker was just writing it."""

__all__ = [
    "AT_WORK",
    "DONE",
    "Attendance",
    "Entry",
    "attend",
    "clear_roster",
    "longest_block",
    "read_entry",
    "read_roster",
    "roster_folder",
]


@dataclass
class Attendance:
    """A worker's own entry, kept up to date by itself; its threads may have blocks under way at the same time.

    Attributes:
        path: where it lies.
        entry: what it says.
    """

    path: Path
    entry: Entry
    _file: int = field(init=False)
    _records: mmap.mmap | _WrittenThrough = field(init=False)
    _looked_at_memory: float = field(init=False, default=0.0)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            weakref.finalize(self, os.close, self._file)
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", str(self.path)) from error
        os.pwrite(self._file, self.entry.pack(), 0)
        self._records = _records(self._file)

    def begin(self, block: int) -> None:
        """A block is under way, beside those that are; not after the worker has left.

        Raises:
            ValueError: more than `MOST_UNDER_WAY` would be.
        """
        with self._lock:
            entry, now = self.entry, time.time()
            if entry.state != AT_WORK:
                return
            if len(entry.blocks) == MOST_UNDER_WAY:
                raise ValueError(f"a worker can have {MOST_UNDER_WAY} blocks under way, not more")
            entry.blocks[block] = entry.heard = now
            place, content = entry.next_record()
            self._records[place] = content

    def end(self, block: int, success: bool) -> None:
        """A block under way is finished; one that went back when the worker left does not count."""
        with self._lock:
            entry, now = self.entry, time.time()
            if entry.state != AT_WORK:
                return
            seconds = now - entry.blocks.pop(block)
            entry.heard = now
            if success:
                entry.done += 1
            else:
                entry.failed += 1
            entry.busy += seconds
            if seconds > entry.longest:
                entry.longest = seconds
            if abs(now - self._looked_at_memory) >= MEMORY_SECONDS:
                entry.memory = peak_memory()
                self._looked_at_memory = now
            place, content = entry.next_record()
            self._records[place] = content

    def leave(self, state: str) -> None:
        """The worker ends; blocks still under way go back."""
        with self._lock:
            self.entry = replace(self.entry, heard=time.time(), blocks={}, state=state, memory=peak_memory())
            os.pwrite(self._file, self.entry.pack(), 0)


class _WrittenThrough:
    """The records of an entry on a file system that does not let files be mapped, as some network file systems."""

    def __init__(self, file: int) -> None:
        self._file = file

    def __setitem__(self, place: slice, content: bytes) -> None:
        os.pwrite(self._file, content, place.start)


def _records(file: int) -> mmap.mmap | _WrittenThrough:
    """The records of an entry, to be written over."""
    try:
        return mmap.mmap(file, RECORDS_BYTES)
    except OSError:
        return _WrittenThrough(file)


def attend(task: BlockTask, worker: str, job: str | None = None, log: str = "") -> Attendance:
    """Enter a worker that begins, in place of an earlier one of the same name.

    Raises:
        UserError: the folder cannot be written.
    """
    now = time.time()
    return Attendance(
        _entry_path(task, worker),
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
    return _read(_entry_path(task, worker))


def clear_roster(task: BlockTask) -> None:
    """Forget the workers of an earlier driver."""
    shutil.rmtree(roster_folder(task), ignore_errors=True)


def roster_folder(task: BlockTask) -> Path:
    """Where the workers of a task keep their entries."""
    return task.folder / "workers"


def longest_block(task: BlockTask) -> float:
    """Seconds that the slowest block has taken so far; 0 if none is finished."""
    return max((entry.longest for entry in _entries(task)), default=0.0)


def _entries(task: BlockTask) -> Iterator[Entry]:
    entries = (_read(path) for path in roster_folder(task).glob("*.entry"))
    return (entry for entry in entries if entry is not None)


def _entry_path(task: BlockTask, worker: str) -> Path:
    return roster_folder(task) / f"{worker}.entry"


def _read(path: Path) -> Entry | None:
    for _ in range(READ_TRIES):
        try:
            return Entry.unpack(path.read_bytes())
        except OSError:
            return None
        except ValueError:
            continue
    return None
