"""Graph stores of every kind, on real servers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from database_servers import MongoServer, PostgresServer, Server

STORES = ("sqlite", "files", "postgresql", "mongodb")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that runs."""
    server = PostgresServer()
    if server.owned:
        server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def mongo() -> Iterator[MongoServer]:
    """A MongoDB server that runs."""
    server = MongoServer()
    if server.owned:
        server.start()
    yield server
    server.close()


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
        return server.graph_url(name)

    def remove(self) -> None:
        """Leave nothing on servers that are not removed anyway."""
        for server, name in self._on_servers:
            if not server.owned:
                server.remove_graph(name)


@pytest.fixture
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """Graphs that are gone after the test."""
    made = Stores(request, tmp_path)
    yield made
    made.remove()


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of store in turn."""
    return str(request.param)


@pytest.fixture
def url(stores: Stores, kind: str) -> str:
    """The URL of a new graph in each kind of store."""
    return stores.url(kind)
