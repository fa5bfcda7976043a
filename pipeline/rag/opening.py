"""From a URL to a store. Drivers are imported with the first store that needs them, so that workers start fast."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..config import RagConfig
from ..config.graph_url import shown_url
from ..errors import UserError
from .address import parse_address
from .store import RagStore

if TYPE_CHECKING:
    from .mongo import MongoRag
    from .postgres import PostgresRag

EXAMPLES = {
    "sqlite": "sqlite:///rag.sqlite",
    "files": "files:///rag",
    "postgresql": "postgresql://user@host/database?schema=run_a",
    "mongodb": "mongodb://user@host/database?schema=run_a",
}
ALIASES = {"postgres": "postgresql", "mongodb+srv": "mongodb"}


def open_rag(url: str | RagConfig, directory: Path | None = None) -> RagStore:
    """Open a graph store, creating it if it does not exist.

    Args:
        url: as `rag.url` in docs/CONFIG.md, or the `rag` section of a config.
        directory: the run directory: where a relative file lies, and after which a graph on a server is called whose
            URL gives no name. Default: the current directory, and `emdistill`.

    Raises:
        UserError: the URL names no graph store, or the store cannot be opened.
    """
    text = _text(url)
    kind = _kind(text)
    if kind == "sqlite":
        from .sqlite import SqliteRag

        return SqliteRag(_place(text, kind, directory))
    if kind == "files":
        from .files import FileRag

        return FileRag(_place(text, kind, directory))
    return _open_on_server(text, kind, directory, create=True)


def rag_exists(url: str | RagConfig, directory: Path | None = None) -> bool:
    """Whether there is a graph store at a URL; nothing is created.

    Raises:
        UserError: the URL names no graph store, or its server does not answer.
    """
    text = _text(url)
    kind = _kind(text)
    if kind in ("sqlite", "files"):
        return _place(text, kind, directory).exists()
    with _open_on_server(text, kind, directory, create=False) as store:
        return store.exists()


def rag_is_missing(url: str | RagConfig, directory: Path | None = None) -> bool:
    """Whether the file or folder of a graph store is not there; a store on a server is not asked, and counts as there.

    Raises:
        UserError: the URL names no graph store.
    """
    text = _text(url)
    kind = _kind(text)
    return kind in ("sqlite", "files") and not _place(text, kind, directory).exists()


def _open_on_server(text: str, kind: str, directory: Path | None, create: bool) -> PostgresRag | MongoRag:
    try:
        if kind == "postgresql":
            from . import postgres

            return postgres.PostgresRag(parse_address(text, postgres.DRIVER_OPTIONS, directory), create)
        from . import mongo

        return mongo.MongoRag(parse_address(text, mongo.DRIVER_OPTIONS, directory), create)
    except ModuleNotFoundError as error:
        raise UserError(f"{kind}:// needs the package {error.name}; install what setup.py lists", "rag.url") from error


def _text(url: str | RagConfig) -> str:
    return url.url if isinstance(url, RagConfig) else url


def _kind(text: str) -> str:
    scheme, separator, _ = text.partition("://")
    kind = ALIASES.get(scheme, scheme)
    if not separator or kind not in EXAMPLES:
        known = ", ".join(f"{name}:// (for example {example})" for name, example in EXAMPLES.items())
        raise UserError(f"unknown graph store {shown_url(text)!r}; known: {known}", "rag.url")
    return kind


def _place(text: str, kind: str, directory: Path | None) -> Path:
    """The file or folder of an embedded store."""
    place = text.partition("://")[2]
    name = place.removeprefix("/")
    if not name or place == name:
        raise UserError(f"this store is given with three slashes: {EXAMPLES[kind]}", "rag.url")
    return (directory or Path.cwd()) / name
