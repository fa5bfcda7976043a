"""One process at a time writes into a run directory, whatever it does there; and a look at whether there is one.

Imports, trainings, block-wise stages, evaluation, floor and report all take the same lock, each around everything that
it writes. A command made of several of them takes it once more around all: within a thread, the lock nests.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import psutil

from ...command_names import is_part_of_more
from ...errors import UserError, writing
from ...run import Run
from .mounts import shares_locks
from .ownership import PRIVATE_FILE, keep_private, own_folder, user_name

Given = ParamSpec("Given")
Result = TypeVar("Result")

PAUSES_BETWEEN_TRIES = (0.0, 0.02, 0.08, 0.2)
"""Seconds. Whoever looks at the lock has it for microseconds (milliseconds on a file server), so a driver that finds it
taken tries again: a driver in its place would still have it, a look would not."""
LOCKS = Path("/proc/locks")
"""Where Linux lists the locks of its processes."""
NOTE_BYTES = 1024
"""The note in the file is not longer than this."""
ALL_STEPS = "all steps"
"""The note's last line, of whoever does all steps of a run."""


class _Held(threading.local):
    """The locks that this thread has, by the real path of their file."""

    def __init__(self) -> None:
        self.paths: set[str] = set()


_held = _Held()


@contextmanager
def only_driver(run: Run) -> Iterator[None]:
    """Keep all others from writing into the run directory as long as the block lasts; a killed process holds nothing.

    Inside a block of the same thread and run directory, it holds already.

    Raises:
        UserError: somebody else works on the directory, and is named; or it cannot be written.
    """
    path = _path(run)
    real = os.path.realpath(path)
    if real in _held.paths:
        yield
        return
    missing = [folder for folder in (path.parent, run.directory) if not folder.exists()]
    file = _open_and_take(run, path)
    _held.paths.add(real)
    try:
        yield
    except BaseException:
        if missing:
            _leave_no_trace(path, missing)
        raise
    finally:
        _held.paths.discard(real)
        with contextlib.suppress(UserError):  # there may be more to tell
            if path.parent.exists():
                keep_private(path.parent)
        os.close(file)


def keeps_others_out(work: Callable[Concatenate[Run, Given], Result]) -> Callable[Concatenate[Run, Given], Result]:
    """Have a function that writes into a run directory, its first argument, do so alone; see `only_driver`."""

    @functools.wraps(work)
    def alone(run: Run, /, *arguments: Given.args, **named: Given.kwargs) -> Result:
        with only_driver(run):
            return work(run, *arguments, **named)

    return alone


def _open_and_take(run: Run, path: Path) -> int:
    """The lock's file, open and locked, with a note of who has it.

    Raises:
        UserError: another one has it, or it cannot be written.
    """
    while True:
        try:
            own_folder(path.parent)
            with writing(path):
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, PRIVATE_FILE)
        except (UserError, FileNotFoundError) as error:
            if FileNotFoundError in (type(error), type(error.__cause__)):
                continue  # another one has left no trace just now
            raise
        try:
            with writing(path):
                taken = _take(file)
            if not taken:
                holder = _other_holder(file) or _state_in(file, held=True).described
                raise UserError(
                    f"{holder} works on this run directory; wait for it, or stop it first", str(run.directory)
                )
            if _is_there(file, path):
                keep_private(path.parent)
                with writing(path):
                    os.ftruncate(file, 0)
                    os.pwrite(file, _own_note(), 0)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # somebody has deleted the folder meanwhile: nobody else would see this lock


@dataclass(frozen=True)
class LockState:
    """Who has a run directory to itself.

    Attributes:
        held: whether a process has it now; None if that cannot be told from this machine.
        host, process: who has it, or had it last; empty and None if nobody ever had, or is about to say so.
        since: when it was taken last, in seconds since 1970; 0 if it never was.
        command: the program that took it, without its arguments, some of which are nobody's business.
        user: who ran that.
        all_steps: it did, or does, all steps of the run, as `run_all.py` does.
    """

    held: bool | None
    host: str = ""
    process: int | None = None
    since: float = 0.0
    command: str = ""
    user: str = ""
    all_steps: bool = False

    @property
    def holder(self) -> str:
        """Who has the lock, as a phrase: `process 12 on host`."""
        return f"process {self.process} on {self.host}" if self.process is not None else "another process"

    @property
    def described(self) -> str:
        """The same with command, since when and user: `process 12 on host (audit.py, since 2026-11-28 20:41, me)`."""
        try:
            moment = time.strftime("since %Y-%m-%d %H:%M", time.localtime(self.since))
        except (OverflowError, ValueError, OSError):
            moment = ""
        return f"{self.holder} ({', '.join(part for part in (self.command, moment, self.user) if part)})"


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
        state = _state_in(file, _is_held(file))
    finally:
        os.close(file)
    if state.held is False and state.host != socket.gethostname() and not shares_locks(path):
        return replace(state, held=None)
    return state


def _state_in(file: int, held: bool | None) -> LockState:
    """What the file says of who had the lock last."""
    lines = [" ".join(line.split()) for line in os.pread(file, NOTE_BYTES, 0).decode(errors="replace").split("\n")]
    place, command, user, steps = (*lines, "", "", "")[:4]
    told = re.fullmatch(r"process (\d{1,10}) on (.*)", place)
    host, process = (told[2], int(told[1])) if told else ("", None)
    return LockState(held, host, process, os.fstat(file).st_mtime, command, user, steps == ALL_STEPS)


def _other_holder(file: int) -> str | None:
    """Who of this machine has locked the file, if it is somebody else than the file says; None if that is not known."""
    status, told = os.fstat(file), _state_in(file, held=True)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = [line.split() for line in LOCKS.read_text().splitlines()]
        holders = [int(line[4]) for line in lines if line[1] == "FLOCK" and line[5] == place]
        others = [psutil.Process(number) for number in holders if number != told.process]
        here = ", ".join(f"process {other.pid} on {socket.gethostname()} (of {other.username()})" for other in others)
    except (OSError, IndexError, ValueError, psutil.Error):
        return None
    return here or None


def _own_note() -> bytes:
    """Who this process is, a line each: process and machine, the program, the user, and whether it does all steps."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] not in ("", "-c") else "Python"
    lines = [f"process {os.getpid()} on {socket.gethostname()}", program, user_name(os.geteuid())]
    note = "\n".join([*lines, ALL_STEPS] if is_part_of_more() else lines)
    return note.encode(errors="replace")[:NOTE_BYTES]


def _leave_no_trace(path: Path, made: Sequence[Path]) -> None:
    """Remove the lock, and the folders that were made for it, inner ones first, if nothing else has come into them:
    what was refused has written nothing. Whoever opened the file meanwhile notices that it is gone.
    """
    with contextlib.suppress(OSError):
        if [found.name for found in path.parent.iterdir()] == [path.name]:
            path.unlink()
            for folder in made:
                folder.rmdir()


def _is_there(file: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


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
