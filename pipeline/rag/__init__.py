"""The region adjacency graph: one interface, one store per database."""

from __future__ import annotations

from pathlib import Path

from ..config import RagConfig
from ..errors import UserError
from .sqlite import SqliteRag
from .store import RagCounts, RagStore
from .tables import EdgeTable, NodeTable

__all__ = ["EdgeTable", "NodeTable", "RagCounts", "RagStore", "open_rag", "rag_exists"]


def open_rag(url: str | RagConfig, directory: Path | None = None) -> RagStore:
    """Open a graph store, creating it if it does not exist.

    Args:
        url: `sqlite:///file`, or the `rag` section of a config.
        directory: where a relative file lies. Default: the current directory.

    Raises:
        UserError: the URL names an unknown kind of store, or the store cannot be opened.
    """
    return SqliteRag(_sqlite_file(url, directory))


def rag_exists(url: str | RagConfig, directory: Path | None = None) -> bool:
    """Whether there is a graph store at a URL; nothing is created.

    Raises:
        UserError: the URL names an unknown kind of store.
    """
    return _sqlite_file(url, directory).exists()


def _sqlite_file(url: str | RagConfig, directory: Path | None) -> Path:
    text = url.url if isinstance(url, RagConfig) else url
    scheme, separator, place = text.partition("://")
    if not separator or scheme != "sqlite":
        raise UserError(f"unknown graph store {text!r}; known: sqlite:// (for example sqlite:///rag.sqlite)", "rag.url")
    file = place.removeprefix("/")
    if not file or place == file:
        raise UserError("a SQLite store is given as sqlite:///file (three slashes)", "rag.url")
    return (directory or Path.cwd()) / file
