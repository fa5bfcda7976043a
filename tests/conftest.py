"""Graph stores of every kind, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from database_servers import MongoServer, PostgresServer
from graph_stores import STORES, Stores


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
