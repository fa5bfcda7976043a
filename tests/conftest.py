"""Where tests keep their files; graph stores of every kind on real servers; a real SLURM."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from database_servers import MongoServer, PostgresServer
from graph_stores import STORES, Stores
from node_memory import why_no_memory_limits
from node_networks import why_no_networks
from slurm_cluster import SlurmCluster, why_no_slurm

AnyServer = TypeVar("AnyServer", PostgresServer, MongoServer)

MEMORY_DISK = Path("/dev/shm")
ROOM_FOR_TESTS = 4 << 30
"""Bytes that must be free there; what passed is deleted at once."""


def pytest_configure() -> None:
    """Before numpy and torch are imported: one thread for each process, and temporary files in memory.

    Arrays are so small here that threads only wait for each other. Blocks wait for the disk again and again, which is
    what they are for, but here nobody pulls the plug.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if "PYTEST_DEBUG_TEMPROOT" in os.environ or not MEMORY_DISK.is_dir() or not os.access(MEMORY_DISK, os.W_OK):
        return
    if shutil.disk_usage(MEMORY_DISK).free >= ROOM_FOR_TESTS:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY_DISK)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that other users may look into; pytest closes its own whenever it starts, wherever it runs."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def running(server: AnyServer) -> Iterator[AnyServer]:
    """Start a server if it is ours, and close it in the end."""
    if server.owned:
        server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that runs."""
    yield from running(PostgresServer())


@pytest.fixture(scope="session")
def mongo() -> Iterator[MongoServer]:
    """A MongoDB server that runs."""
    yield from running(MongoServer())


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


def running_cluster(cluster: SlurmCluster) -> Iterator[SlurmCluster]:
    """Start a cluster that SLURM's commands find, and stop it in the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(cluster.configuration))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def need(missing: str | None) -> None:
    """Skip the test and say what is missing, if anything."""
    if missing is not None:
        pytest.skip(missing)


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A SLURM of two nodes with four processors each, that runs."""
    need(why_no_slurm())
    yield from running_cluster(SlurmCluster())


@pytest.fixture
def slurm_namespaces() -> Iterator[SlurmCluster]:
    """A SLURM whose nodes have networks of their own, for one test."""
    need(why_no_slurm() or why_no_networks())
    yield from running_cluster(SlurmCluster(namespaces=True))


@pytest.fixture
def slurm_memory_limits() -> Iterator[SlurmCluster]:
    """A SLURM that kills jobs which use more memory than they asked for, for one test."""
    need(why_no_slurm() or why_no_memory_limits())
    yield from running_cluster(SlurmCluster(memory_limits=True))
