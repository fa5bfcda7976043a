"""The one exception that means "the user can fix this", and how passwords stay out of what is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

HIDDEN = "***"
"""What stands in place of a password."""

_ACCOUNT = re.compile(r"(://[^:/@\s]*):[^\s\"']*@")
_SECRET_OPTION = re.compile(r"([?&][A-Za-z_]*password=)[^&\s\"']*", re.IGNORECASE)

_LINE_BREAK = re.compile(r"\s*[\r\n\v\f]\s*")


class UserError(Exception):
    """A mistake in a config, in data, or in the environment that the user can mend.

    The message is one line: what is wrong, where, and what would be right. Workflow scripts print it and
    exit with status 2; every other exception is a bug and keeps its traceback. Passwords in URLs are hidden.

    Args:
        what: what is wrong, and what would be right, in one line.
        where: dotted path in the config, or the file or dataset concerned. Empty if the message says it.
    """

    def __init__(self, what: str, where: str = "") -> None:
        self.what = hide_passwords(_LINE_BREAK.sub(" ", what.strip()))
        self.where = where
        super().__init__(f"{where}: {self.what}" if where else self.what)


@contextmanager
def writing(where: object) -> Iterator[None]:
    """Turn errors of the operating system inside the block into one line for the user.

    Args:
        where: the file or folder that is written.

    Raises:
        UserError: the disk is full, or not writable.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}", str(where)) from error


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it was explicitly raised from, link by link."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__


def hide_passwords(text: str) -> str:
    """A text of others in which the passwords of URLs are replaced by `***`, rather too much than too little.

    It is a net below: who has a URL shows what `config/graph_url.py` or `volumes/locations.py` makes of it.
    """
    return _SECRET_OPTION.sub(rf"\1{HIDDEN}", _ACCOUNT.sub(rf"\1:{HIDDEN}@", text))
