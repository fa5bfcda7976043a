"""URLs of graph stores, taken apart: what of one is shown is what was understood of it, and never its password.

A server's URL is `scheme://user:password@host:port/database?option=value`. Of text that is not of this form nobody can
tell what in it is a password, so no more than its scheme is shown, and it is refused without being quoted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import HIDDEN

EMBEDDED = ("sqlite", "files")
"""Schemes of stores that are files, `scheme:///path`; they have no passwords."""
FORM = "scheme://user:password@host:port/database?schema=name"
ENCODE = "write / ? # : and @ in a user or password as %2F %3F %23 %3A and %40"

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/?#@\s]*)(?::(\d*))?")
_PLAIN = re.compile(r"[\w./~-]*")
"""A name or a path: text that has nothing of a URL or of `key=value`."""
_PART = re.compile(r"[^/?#@:\s]*")
_OPTION, _VALUE = re.compile(r"[A-Za-z_]\w*"), re.compile(r"[^:?#@\s]*")
_SECRET_OPTION = re.compile(r"pass|pwd|secret|token|credential", re.IGNORECASE)


@dataclass(frozen=True)
class GraphUrl:
    """The URL of a graph on a server; all parts as they were written.

    Attributes:
        scheme: before `://`.
        user: empty if none is given.
        password: None if none is given.
        hosts: `host:port`, or several of them between commas.
        database: empty if none is given.
        options: what follows the question mark, by name.
    """

    scheme: str
    user: str
    password: str | None
    hosts: str
    database: str
    options: tuple[tuple[str, str], ...]

    @staticmethod
    def parse(text: str) -> GraphUrl | None:
        """Take a URL apart; None if it is not of the form."""
        scheme, separator, rest = text.partition("://")
        account, _, place = rest.rpartition("@")
        user, colon, password = account.partition(":")
        location, question, query = place.partition("?")
        hosts, _, database = location.partition("/")
        parts = [part.partition("=") for part in query.split("&")] if question else []
        options = tuple((name, value) for name, _, value in parts)
        understood = (
            separator
            and SCHEME.fullmatch(scheme)
            and _PART.fullmatch(user)
            and all(SERVER.fullmatch(server) for server in hosts.split(","))
            and _PART.fullmatch(database)
            and all(_OPTION.fullmatch(name) and equals and _VALUE.fullmatch(value) for name, equals, value in parts)
        )
        if not understood:
            return None
        return GraphUrl(scheme, user, password if colon else None, hosts, database, options)

    @property
    def is_encoded(self) -> bool:
        """Whether the password has no character that must be percent-encoded."""
        return self.password is None or bool(_PART.fullmatch(self.password))

    @property
    def has_secrets(self) -> bool:
        """Whether something in it must not be shown."""
        return self.password is not None or any(_SECRET_OPTION.search(name) for name, _ in self.options)

    @property
    def shown(self) -> str:
        """The URL with `***` in place of passwords."""
        account = self.user if self.password is None else f"{self.user}:{HIDDEN}"
        database = f"/{self.database}" if self.database or self.options else ""
        shown = [f"{name}={HIDDEN if _SECRET_OPTION.search(name) else value}" for name, value in self.options]
        query = f"?{'&'.join(shown)}" if shown else ""
        return f"{self.scheme}://{account}{'@' if account else ''}{self.hosts}{database}{query}"


def shown_url(text: str) -> str:
    """The URL of any graph store with `***` in place of passwords; of what is not understood, the scheme at most."""
    scheme, colon, rest = text.partition(":")
    if not colon:
        return text if _PLAIN.fullmatch(text) else HIDDEN
    if not SCHEME.fullmatch(scheme):
        return HIDDEN
    if scheme in EMBEDDED and rest.startswith("///"):
        return text
    url = GraphUrl.parse(text)
    if url is None:
        return f"{scheme}:{HIDDEN}"
    return url.shown if url.has_secrets else text
