"""One driver at a time on a run directory."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UserError
from ..run import Run


@contextmanager
def only_driver(run: Run) -> Iterator[None]:
    """Keep other drivers from the run directory as long as the block lasts; a killed process holds nothing.

    Raises:
        UserError: another process works on the directory, or it cannot be written.
    """
    path = run.tracking / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", str(path)) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 256).decode(errors="replace") or "another process"
            raise UserError(
                f"{holder} works on this run directory; wait for it, or stop it first", str(run.directory)
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(file)
