"""The kinds of graph stores, and new graphs in each of them."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from database_servers import Server

STORES = ("sqlite", "files", "postgresql", "mongodb")


class Stores:
    """Makes URLs of new graphs in every kind of store."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._request = request
        self._folder = folder
        self._on_servers: list[tuple[Server, str]] = []

    def url(self, kind: str) -> str:
        """The URL of a graph that does not exist yet; skips the test if its server cannot be had."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        if kind == "sqlite":
            return f"sqlite:///{self._folder / name}.sqlite"
        if kind == "files":
            return f"files:///{self._folder / name}"
        server = self._request.getfixturevalue({"postgresql": "postgres", "mongodb": "mongo"}[kind])
        self._on_servers.append((server, name))
        result: str = server.graph_url(name)
        return result

    def remove(self) -> None:
        """Leave nothing on servers that are not removed anyway."""
        for server, name in self._on_servers:
            if not server.owned:
                server.remove_graph(name)
