"""Which errors of a store pass by themselves: a busy database, a lost connection, a server that starts again."""

from __future__ import annotations

import errno
import sqlite3
import sys

from ..errors import causes

TRANSIENT_ERRNOS = {
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
}
"""What network file systems and sockets answer while the other side is away."""

TRANSIENT_SQLSTATES = ("08", "40", "53300", "55P03", "57P")
"""SQLSTATEs begin with: lost connection, serialisation or deadlock, too many clients, lock timeout, shutdown."""


def is_connection_error(error: BaseException) -> bool:
    """Whether trying again later may help: the store was busy or away, and nothing is wrong with the data.

    The cause of an error counts as well. Drivers that this process has not loaded are not loaded for it.
    """
    return any(_is_transient(link) for link in causes(error))


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        name = getattr(error, "sqlite_errorname", None) or ""
        return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or "database is locked" in str(error)
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError) or error.errno in TRANSIENT_ERRNOS
    return _is_transient_in_postgres(error) or _is_transient_in_mongo(error)


def _is_transient_in_postgres(error: BaseException) -> bool:
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(TRANSIENT_SQLSTATES)


def _is_transient_in_mongo(error: BaseException) -> bool:
    errors = sys.modules.get("pymongo.errors")
    if errors is None or not isinstance(error, errors.PyMongoError):
        return False
    return isinstance(error, errors.ConnectionFailure) or error.has_error_label("RetryableWriteError")
