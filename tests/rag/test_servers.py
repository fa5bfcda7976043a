"""Graphs on servers: names, passwords, lost connections, and drivers that only those load who need them."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from database_servers import CLEAR_PASSWORD, PASSWORD, MongoServer, PostgresServer, Server
from graph_stores import Stores
from graphs import assert_same, make_edges, make_nodes, write

from pipeline.config import RagConfig, config_hash, dump_config
from pipeline.config.graph_url import shown_url
from pipeline.errors import UserError, hide_passwords
from pipeline.rag import is_connection_error, open_rag, rag_exists
from pipeline.rag.address import PASSWORD_VARIABLE, parse_address

SERVERS = ("postgresql", "mongodb")

on_servers = pytest.mark.parametrize("kind", SERVERS)


@pytest.fixture
def server(request: pytest.FixtureRequest, kind: str) -> Server:
    found: Server = request.getfixturevalue({"postgresql": "postgres", "mongodb": "mongo"}[kind])
    return found


@pytest.fixture
def own_server(server: Server) -> Server:
    """One that the tests have started: that of a lab, named in the environment, is not stopped under others' feet."""
    if not server.owned:
        pytest.skip("a server that tests may not stop")
    return server


@on_servers
def test_two_graphs_in_one_database_do_not_mix(stores: Stores, kind: str) -> None:
    with open_rag(stores.url(kind)) as first, open_rag(stores.url(kind)) as second:
        write(first, 0, 5)
        write(second, 0, 9)
        second.set_note("rag", "second")
        second.drop()
        assert_same(first.read_nodes(), make_nodes(0, 5))
        assert first.notes() == {}


def test_runs_that_give_no_name_have_graphs_of_their_own(tmp_path: Path) -> None:
    url = "postgresql://host/database"
    names = [parse_address(url, set(), tmp_path / place).graph for place in ("a/Run 7", "b/Run 7", "a/Run 7")]
    assert names[0] == names[2] != names[1]
    assert names[0].startswith("emdistill_run_7_")


HOSTILE = [
    'x"; DROP SCHEMA public CASCADE; --',
    "x'; SELECT pg_sleep(9); --",
    "x;y",
    "x.y",
    "$where",
    "",
    "7x",
    "X",
    "pg_catalog",
    "information_schema",
    "public",
    "x" * 64,
]


@on_servers
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused_before_anything_connects(kind: str, name: str) -> None:
    with pytest.raises(UserError, match="cannot name a graph"):
        open_rag(f"{kind}://127.0.0.1:1/database?schema={quote(name)}")


@on_servers
def test_an_unknown_option_is_refused_without_its_value(kind: str) -> None:
    with pytest.raises(UserError, match="unknown option 'options'") as refusal:
        open_rag(f"{kind}://127.0.0.1:1/database?options=-csession_replication_role")
    assert "replication" not in str(refusal.value)


@on_servers
def test_a_server_that_does_not_answer_is_one_clear_line(kind: str) -> None:
    option = "&serverSelectionTimeoutMS=50" if kind == "mongodb" else ""
    for opening in (open_rag, rag_exists):
        with pytest.raises(UserError, match=r"rag\.url.*cannot be opened") as refusal:
            opening(f"{kind}://someone:{PASSWORD}@127.0.0.1:1/database?schema=a{option}")
        assert PASSWORD not in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert is_connection_error(refusal.value)


def test_tls_options_reach_the_server(postgres: PostgresServer) -> None:
    url = postgres.graph_url("tls") + "&sslmode=verify-full&sslrootcert=/nowhere/root.crt"
    with pytest.raises(UserError, match="SSL was required"):
        open_rag(url)


@on_servers
def test_a_server_that_was_away_is_found_again(own_server: Server, stores: Stores, kind: str) -> None:
    with open_rag(stores.url(kind)) as store:
        write(store, 0, 5)
        own_server.stop()
        try:
            with pytest.raises(Exception, match=r"\w") as lost:
                write(store, 1, 5)
        finally:
            own_server.start()
        assert not isinstance(lost.value, UserError)
        assert is_connection_error(lost.value)
        write(store, 1, 5)
        assert (store.counts().nodes, store.counts().edges) == (10, 8)
        assert_same(store.read_edges().select(slice(0, 4)), make_edges(0, 5))


@on_servers
def test_a_server_that_goes_away_is_one_line_for_whoever_opened_the_graph(
    own_server: Server, stores: Stores, kind: str
) -> None:
    """A step of the driver, an evaluation or an audit; workers try again, for the cause is told from the line."""
    try:
        line = r"rag\.url: the database does not answer any more"
        with pytest.raises(UserError, match=line) as lost, open_rag(stores.url(kind)) as store:
            write(store, 0, 5)
            own_server.stop()
            store.read_edges()
    finally:
        own_server.start()
    assert "\n" not in str(lost.value) and "the same command continues" in str(lost.value)
    assert is_connection_error(lost.value)


def test_a_reader_survives_that_its_block_is_replaced_again_and_again(mongo: MongoServer, stores: Stores) -> None:
    url = stores.url("mongodb")
    script = "import sys; sys.path[:0] = sys.argv[2:]; from graphs import write; from pipeline.rag import open_rag\n"
    script += (
        "store = open_rag(sys.argv[1])\nwhile True:\n    write(store, 0, 5); write(store, 0, 9); print(flush=True)"
    )
    command = [sys.executable, "-c", script, url, *sys.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer, open_rag(url) as store:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            assert {len(store.read_nodes()) for _ in range(30)} <= {5, 9}
        finally:
            writer.send_signal(signal.SIGKILL)


def test_busy_databases_and_lost_connections_pass_and_other_errors_do_not(tmp_path: Path) -> None:
    first, second = (sqlite3.connect(tmp_path / "a", isolation_level=None, timeout=0) for _ in range(2))
    first.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError) as busy:
        second.execute("CREATE TABLE a (b)")
    assert is_connection_error(busy.value)
    with pytest.raises(sqlite3.OperationalError) as wrong:
        second.execute("no SQL")
    assert not is_connection_error(wrong.value)
    assert is_connection_error(ConnectionResetError())
    assert not is_connection_error(FileNotFoundError())
    assert not is_connection_error(ValueError("the connection is what the message is about"))


def test_a_wrong_password_is_no_passing_trouble_of_a_statement(postgres: PostgresServer) -> None:
    import psycopg

    with psycopg.connect(postgres.url) as connection, pytest.raises(psycopg.Error) as wrong:
        connection.execute("SELECT 1 / 0")
    assert not is_connection_error(wrong.value)


def test_drivers_are_loaded_by_those_who_use_them_only() -> None:
    script = (
        "import sys, pipeline.rag, pipeline.volumes; pipeline.rag.is_connection_error(OSError());"
        "print([name for name in ('psycopg', 'pymongo') if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=_environment()
    )
    assert found.stdout.strip() == "[]"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


MASKED = [
    ("postgresql://u:secret@h/d?schema=a", "postgresql://u:***@h/d?schema=a"),
    ("mongodb://u:se%40cret@h1:1,h2:2/d", "mongodb://u:***@h1:1,h2:2/d"),
    ("postgresql://u:se/c@r?et@h/d", "postgresql://u:***@h/d"),
    ("postgresql://u@h/d?password=secret&sslmode=require", "postgresql://u@h/d?password=***&sslmode=require"),
    (
        "mongodb://u@h/d?tls=true&tlsCertificateKeyFilePassword=s",
        "mongodb://u@h/d?tls=true&tlsCertificateKeyFilePassword=***",
    ),
    ("postgresql://u@h:5432/d", "postgresql://u@h:5432/d"),
    ("sqlite:////data/a:b@c.sqlite", "sqlite:////data/a:b@c.sqlite"),
]


@pytest.mark.parametrize(("url", "shown"), MASKED)
def test_passwords_are_hidden_wherever_a_config_is_written(url: str, shown: str) -> None:
    config = RagConfig(url=url)
    assert config.url == url
    assert dump_config(config) == {"url": shown}
    assert config.shown == shown_url(url) == shown
    assert config_hash(config) == config_hash(RagConfig(url=shown))
    assert "url" not in repr(config)
    assert hide_passwords(f"cannot open '{url}'") == hide_passwords(f"cannot open '{shown}'")


def test_a_mistake_in_the_config_does_not_show_the_password() -> None:
    assert "secret" not in str(UserError("unknown graph store 'oracle://u:secret@h/d'"))


@pytest.mark.parametrize("kind", SERVERS)
def test_a_saved_config_takes_the_password_from_the_environment_or_says_so(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    saved = json.loads(json.dumps(dump_config(RagConfig(url=f"{kind}://u:secret@h/d"))))["url"]
    for name in (PASSWORD_VARIABLE, "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match=f"was not saved.*{PASSWORD_VARIABLE}"):
        parse_address(saved, set(), tmp_path)
    monkeypatch.setenv(PASSWORD_VARIABLE, "other")
    assert parse_address(saved, set(), tmp_path).password == "other"
    assert parse_address(f"{kind}://u:secret@h/d", set(), tmp_path).password == "secret"


def test_the_password_of_the_environment_opens_the_store(
    postgres: PostgresServer, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = stores.url("postgresql")
    if PASSWORD not in url:
        pytest.skip("a server with a password that is not known here")
    monkeypatch.setenv(PASSWORD_VARIABLE, CLEAR_PASSWORD)
    with open_rag(shown_url(url)) as store:
        write(store, 0, 5)
    with open_rag(url.replace(f":{PASSWORD}", "")) as store:
        assert store.counts().nodes == 5
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    with pytest.raises(UserError, match="authentication"):
        open_rag(shown_url(url))


def test_a_role_needs_no_more_than_its_schema(postgres: PostgresServer, stores: Stores) -> None:
    import psycopg
    from psycopg import sql

    if not postgres.owned:
        pytest.skip("a server on which tests make no roles")
    url = stores.url("postgresql")
    name = sql.Identifier(url.rpartition("=")[2])
    with psycopg.connect(postgres.url) as connection:
        for role in ("writer", "reader"):
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), CLEAR_PASSWORD))
        connection.execute(sql.SQL("CREATE SCHEMA {} AUTHORIZATION writer").format(name))
    with open_rag(url.replace("emdistill:", "writer:")) as store:
        write(store, 0, 5)
        store.drop()
        write(store, 0, 9)
    with pytest.raises(UserError, match="permission denied"):
        open_rag(postgres.graph_url("elsewhere").replace("emdistill:", "writer:"))
    with psycopg.connect(url.partition("?")[0].replace("emdistill:", "writer:")) as connection:
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO reader").format(name))
        connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO reader").format(name))
    with open_rag(url.replace("emdistill:", "reader:")) as store:
        assert_same(store.read_nodes(), make_nodes(0, 9))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            write(store, 0, 5)
