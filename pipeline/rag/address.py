"""Addresses of graph stores on servers: what may be in a URL, where the password comes from, and whose graph it is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, unquote_plus

from ..config.graph_url import ENCODE, FORM, SERVER, GraphUrl
from ..errors import HIDDEN, UserError
from ..run import place_hash

PASSWORD_VARIABLE = "EMDISTILL_RAG_PASSWORD"
GRAPH_OPTION = "schema"
DEFAULT_GRAPH = "emdistill"
GRAPH_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
RESERVED = re.compile(r"pg_.*|information_schema|public|system.*|admin|local|config")


@dataclass(frozen=True)
class Address:
    """Where a graph lies on a server.

    Attributes:
        scheme: of the URL.
        hosts: `host:port`, or several of them between commas; empty for the driver's default.
        user, database: empty for the driver's default.
        graph: name of this graph within the database.
        options: the driver's options, as text.
        password: None where none was given.
    """

    scheme: str
    hosts: str
    user: str
    database: str
    graph: str
    options: Mapping[str, str]
    password: str | None = field(repr=False)

    @property
    def servers(self) -> list[tuple[str, str]]:
        """Host and port of each server; empty text for the driver's default."""
        found = [SERVER.fullmatch(server) for server in self.hosts.split(",") if server]
        return [(unquote(match[1].strip("[]")), match[2] or "") for match in found if match]


def parse_address(url: str, known_options: set[str], directory: Path | None) -> Address:
    """Take a server's URL apart: `scheme://user:password@host:port/database?schema=graph&option=value`.

    Args:
        url: with reserved characters in user and password percent-encoded.
        known_options: what may follow the question mark besides `schema`.
        directory: the run directory, after which the graph is called if the URL does not name it.

    Raises:
        UserError: it is no such URL, an unknown option, a graph's name that is none, or a password that was not saved
            and is missing.
    """
    given = GraphUrl.parse(url)
    if given is None or not given.is_encoded:
        raise UserError(f"is not of the form {FORM}; {ENCODE}", "rag.url")
    options = {name: unquote_plus(value) for name, value in given.options}
    graph = options.pop(GRAPH_OPTION, None)
    for name in options:
        if name not in known_options:
            known = ", ".join([GRAPH_OPTION, *sorted(known_options)])
            raise UserError(f"unknown option {name!r} of {given.scheme}://; known: {known}", "rag.url")
    return Address(
        scheme=given.scheme,
        hosts=given.hosts,
        user=unquote(given.user),
        database=unquote(given.database),
        graph=_default_graph(directory) if graph is None else _checked(graph),
        options=options,
        password=_password(None if given.password is None else unquote(given.password)),
    )


def _checked(graph: str) -> str:
    if not GRAPH_NAME.fullmatch(graph) or RESERVED.fullmatch(graph):
        rule = "a name has a to z, 0 to 9 and _, at most 63, begins with no digit, and is none of the database's own"
        raise UserError(f"{GRAPH_OPTION}={graph!r} cannot name a graph: {rule}", "rag.url")
    return graph


def _default_graph(directory: Path | None) -> str:
    """After the run directory: two runs never share a graph, not even a run and its copy."""
    if directory is None:
        return DEFAULT_GRAPH
    name = re.sub(r"[^a-z0-9]+", "_", directory.name.lower()).strip("_")[:40]
    return f"{DEFAULT_GRAPH}_{name}_{place_hash(directory)}"


@contextmanager
def password_in_environment(url: str) -> Iterator[None]:
    """Let processes that are started inside find the password of a URL, which is saved nowhere."""
    given = GraphUrl.parse(url)
    password = unquote(given.password or "") if given is not None and given.is_encoded else ""
    before = os.environ.get(PASSWORD_VARIABLE)
    if password and password != HIDDEN:
        os.environ[PASSWORD_VARIABLE] = password
    try:
        yield
    finally:
        if before is not None:
            os.environ[PASSWORD_VARIABLE] = before
        else:
            os.environ.pop(PASSWORD_VARIABLE, None)


def _password(given: str | None) -> str | None:
    """The password of the URL, or that of the environment."""
    if given not in (None, HIDDEN):
        return given
    found = os.environ.get(PASSWORD_VARIABLE)
    if found is None and given == HIDDEN and not _libpq_has_password():
        raise UserError(f"its password was not saved with the config; set {PASSWORD_VARIABLE}", "rag.url")
    return found


def _libpq_has_password() -> bool:
    """Whether PostgreSQL's own variables or file may give a password, which its driver looks up by itself."""
    file = Path(os.environ.get("PGPASSFILE", Path.home() / ".pgpass"))
    return "PGPASSWORD" in os.environ or file.exists()
