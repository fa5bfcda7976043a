"""Real database servers for tests: private ones that are started here, or those that the environment names.

`EMDISTILL_TEST_POSTGRES_URL` (a URL without `?schema`) and `EMDISTILL_TEST_MONGODB_URI` (with a database) name servers
to use instead; they are not restarted. Otherwise PostgreSQL's own programs make a cluster in a temporary folder, and
`secantusd-py` (PyPI: secantusdb), which speaks MongoDB's protocol, is looked for in `EMDISTILL_TEST_SECANTUSD` and
on the PATH; `.ci/run` installs both.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pymongo
import pytest
from daemons import free_ports

PASSWORD = "Corre%3Actpferd-7"
"""As it is written in a URL."""
CLEAR_PASSWORD = "Corre:ctpferd-7"


class Server(ABC):
    """A database server.

    Attributes:
        url: without the name of a graph.
        owned: whether tests may stop and start it.
    """

    url: str
    owned = True

    @abstractmethod
    def start(self) -> None:
        """Start it, and wait until it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it."""

    @abstractmethod
    def remove_graph(self, name: str) -> None:
        """Leave nothing of a graph behind."""

    def graph_url(self, name: str) -> str:
        """The URL of a graph."""
        return f"{self.url}{'&' if '?' in self.url else '?'}schema={name}"


class PostgresServer(Server):
    """A private cluster, or the server of `EMDISTILL_TEST_POSTGRES_URL`.

    Args:
        durable: wait for the disk at every commit, as servers do; tests need not.
    """

    def __init__(self, durable: bool = False) -> None:
        self._durable = durable
        given = os.environ.get("EMDISTILL_TEST_POSTGRES_URL")
        if given:
            self.url, self.owned = given, False
            return
        self._programs = _postgres_programs()
        self._port = free_ports(1)[0]
        self._folder = Path(tempfile.mkdtemp(prefix="emdistill-postgres-"))
        self._user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        if self._user:
            shutil.chown(self._folder, self._user)
        password_file = self._folder / "password"
        password_file.write_text(CLEAR_PASSWORD)
        password_file.chmod(0o644)
        self._call("initdb", "-A", "scram-sha-256", "-U", "emdistill", f"--pwfile={password_file}", "--no-sync")
        self.url = f"postgresql://emdistill:{PASSWORD}@127.0.0.1:{self._port}/postgres"

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", str(self._folder / "data"), *arguments]
        with (self._folder.parent / f"{self._folder.name}.log").open("ab") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, user=self._user, cwd=self._folder)

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        options += "" if self._durable else " -c fsync=off"
        self._call("pg_ctl", "-o", options, "-l", str(self._folder / "log"), "-w", "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-m", "fast", "-w", "stop")

    def remove_graph(self, name: str) -> None:
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.url) as connection:
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))

    def close(self) -> None:
        """Stop a private cluster and remove it."""
        if self.owned:
            self.stop()
            shutil.rmtree(self._folder)
            (self._folder.parent / f"{self._folder.name}.log").unlink()


class MongoServer(Server):
    """A private secantusdb, or the server of `EMDISTILL_TEST_MONGODB_URI`."""

    def __init__(self) -> None:
        given = os.environ.get("EMDISTILL_TEST_MONGODB_URI")
        if given:
            self.url, self.owned = given, False
            return
        self._program = _secantusd()
        self._port = free_ports(1)[0]
        self._folder = Path(tempfile.mkdtemp(prefix="emdistill-mongo-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"mongodb://127.0.0.1:{self._port}/emdistill?serverSelectionTimeoutMS=3000"

    def start(self) -> None:
        place = ["--host", "127.0.0.1", "--port", str(self._port), "--storage-path", str(self._folder / "data")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self._program, *place, "--standalone"], stdout=log, stderr=log)
        client: pymongo.MongoClient[dict[str, Any]]
        with pymongo.MongoClient(self.url, serverSelectionTimeoutMS=300_000) as client:
            client.admin.command("ping")

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(timeout=300)

    def remove_graph(self, name: str) -> None:
        client: pymongo.MongoClient[dict[str, Any]]
        with pymongo.MongoClient(self.url) as client:
            for part in ("blocks", "nodes", "edges", "notes"):
                client.get_default_database().drop_collection(f"{name}.{part}")

    def close(self) -> None:
        """Remove a private server and its data."""
        if self.owned and self._process is not None:
            self._process.kill()
            self._process.wait()
            shutil.rmtree(self._folder)


def _postgres_programs() -> Path:
    """The folder of initdb and pg_ctl, of the newest version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    found = [folder for folder in folders if (folder / "initdb").exists()]
    on_path = shutil.which("initdb")
    if on_path:
        found.append(Path(on_path).resolve().parent)
    if not found:
        pytest.skip("no PostgreSQL: neither initdb (install postgresql) nor EMDISTILL_TEST_POSTGRES_URL")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user called postgres")
    return found[-1]


def _secantusd() -> str:
    program = os.environ.get("EMDISTILL_TEST_SECANTUSD") or shutil.which("secantusd-py")
    if not program or not Path(program).exists():
        pytest.skip(
            "no MongoDB: neither EMDISTILL_TEST_MONGODB_URI nor EMDISTILL_TEST_SECANTUSD (the path of secantusd-py)"
        )
    return program
