"""One driver at a time on a run directory, and a look at whether there is one."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError, writing
from ...run import Run
from .mounts import shares_locks

PAUSES_BETWEEN_TRIES = (0.0, 0.02, 0.08, 0.2)
"""Seconds. Whoever looks at the lock has it for microseconds (milliseconds on a file server), so a driver that finds it
taken tries again: a driver in its place would still have it, a look would not."""


@contextmanager
def only_driver(run: Run) -> Iterator[None]:
    """Keep other drivers from the run directory as long as the block lasts; a killed process holds nothing.

    Raises:
        UserError: another process works on the directory, or it cannot be written.
    """
    path = _path(run)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _take(file):
            holder = os.read(file, 256).decode(errors="replace") or "another process"
            raise UserError(f"{holder} works on this run directory; wait for it, or stop it first", str(run.directory))
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(file)


@dataclass(frozen=True)
class LockState:
    """Who has a run directory to itself.

    Attributes:
        held: whether a process has it now; None if that cannot be told from this machine.
        host, process: who has it, or had it last; empty and None if nobody ever had, or is about to say so.
        since: when it was taken last, in seconds since 1970; 0 if it never was.
    """

    held: bool | None
    host: str = ""
    process: int | None = None
    since: float = 0.0

    @property
    def holder(self) -> str:
        """Who has the lock, as a phrase: `process 12 on host`."""
        return f"process {self.process} on {self.host}" if self.process is not None else "another process"


def lock_state(run: Run) -> LockState:
    """Whether a driver works on a run directory. Keeps no driver from starting, and needs no right to write.

    There is no way to ask for an flock but to take it: it is taken shared, without waiting, and given back at once.
    Looks at the same moment do not see each other; a driver that starts at that moment tries again.

    A lock that is free here may be held on another machine, on file systems whose locks stay on theirs.
    """
    path = _path(run)
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return LockState(held=False)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path)) from error
    try:
        held = _is_held(file)
        told = re.fullmatch(r"process (\d+) on (.*)", os.pread(file, 256, 0).decode(errors="replace"))
        since = os.fstat(file).st_mtime
    finally:
        os.close(file)
    host, process = (told[2], int(told[1])) if told else ("", None)
    if held is False and host != socket.gethostname() and not shares_locks(path):
        held = None
    return LockState(held, host, process, since)


def _path(run: Run) -> Path:
    return run.tracking / "lock"


def _take(file: int) -> bool:
    """Take the lock for good; False if another driver has it."""
    for pause in PAUSES_BETWEEN_TRIES:
        time.sleep(pause)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def _is_held(file: int) -> bool | None:
    """None where the file system knows no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
