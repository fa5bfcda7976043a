"""The one exception that means "the user can fix this"."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in a config, in data, or in the environment that the user can mend.

    The message is one line: what is wrong, where, and what would be right. Workflow scripts print it and
    exit with status 2; every other exception is a bug and keeps its traceback.

    Args:
        what: what is wrong, and what would be right, in one line.
        where: dotted path in the config, or the file or dataset concerned. Empty if the message says it.
    """

    def __init__(self, what: str, where: str = "") -> None:
        self.what = " ".join(what.split())
        self.where = where
        super().__init__(f"{where}: {self.what}" if where else self.what)
