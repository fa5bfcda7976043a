"""What to do about an error in a block: wait and try again, or not.

The table below is read from top to bottom; the first line that fits an error, or one that it was raised from, decides.
"""

from __future__ import annotations

import errno
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from ...config import ClusterConfig
from ...errors import UserError, causes
from ...rag import is_connection_error
from ...volumes.storage_errors import StorageUnavailable
from .memory import is_memory_error


class ErrorKind(Enum):
    """Kinds of errors, by what helps."""

    TRANSIENT = "the infrastructure: the worker waits, opens everything anew and tries again"
    DISK_FULL = "no room: nothing helps but room, so the run ends"
    MEMORY = "too little memory: tried again, since others may have had it; then the stage ends and says what lowers it"
    PERMANENT = "the code or the data: the same block would fail in the same way, so it is not tried again"
    UNKNOWN = "may be either: tried again by another worker, cluster.retries times"


@dataclass(frozen=True)
class Rule:
    """A line of the table.

    Attributes:
        kind: what it is,
        types: if the error is one of these,
        numbers: and has one of these numbers (none given: any),
        texts: and says one of these (none given: anything).
    """

    kind: ErrorKind
    types: tuple[type[BaseException], ...]
    numbers: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()

    def fits(self, error: BaseException) -> bool:
        """Whether the line is about an error."""
        if not isinstance(error, self.types):
            return False
        if self.numbers and getattr(error, "errno", None) not in self.numbers:
            return False
        text = str(error).lower()
        return not self.texts or any(part in text for part in self.texts)


NETWORK = (
    errno.ECONNRESET,
    errno.ECONNREFUSED,
    errno.ECONNABORTED,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.ENETRESET,
)
FILE_SERVER = (errno.ESTALE, errno.EIO, errno.EREMOTEIO, errno.EAGAIN, errno.EBUSY, errno.ENOLCK, errno.EINTR)

TABLE = (
    Rule(ErrorKind.DISK_FULL, (OSError,), numbers=(errno.ENOSPC, errno.EDQUOT)),
    Rule(ErrorKind.DISK_FULL, (sqlite3.Error,), texts=("database or disk is full",)),
    Rule(ErrorKind.TRANSIENT, (OSError,), numbers=NETWORK + FILE_SERVER),
    Rule(ErrorKind.TRANSIENT, (ConnectionError, TimeoutError)),
    Rule(ErrorKind.TRANSIENT, (sqlite3.OperationalError,), texts=("locked", "busy", "disk i/o error")),
    Rule(ErrorKind.TRANSIENT, (StorageUnavailable,)),
    Rule(ErrorKind.PERMANENT, (UserError, AssertionError, AttributeError, ImportError, LookupError, NameError)),
    Rule(ErrorKind.PERMANENT, (TypeError, ValueError, ArithmeticError, NotImplementedError)),
)

OUT_OF_MEMORY = ("out of memory", "cublas_status_alloc_failed")


def kind_of(error: BaseException) -> ErrorKind:
    """What kind of error it is, with what it was raised from; of those of databases, the graph store knows more."""
    if is_memory_error(error):
        return ErrorKind.MEMORY
    if is_connection_error(error):
        return ErrorKind.TRANSIENT
    chain = list(causes(error))
    for rule in TABLE:
        if any(rule.fits(link) for link in chain):
            return rule.kind
    return ErrorKind.UNKNOWN


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator had too little memory: half as much at once may fit."""
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY)


def pauses(cluster: ClusterConfig, seed: str) -> Iterator[float]:
    """Seconds to wait before each further attempt: doubling, up to a limit, each up to half longer or shorter.

    Args:
        cluster: how many attempts, and how long at first and at most.
        seed: blocks that wait for the same server must not come back at the same moment, so each has its own.
    """
    chance = random.Random(seed)
    for attempt in range(cluster.passing_retries):
        yield min(cluster.passing_pause * 2**attempt, cluster.longest_pause) * chance.uniform(0.5, 1.5)
