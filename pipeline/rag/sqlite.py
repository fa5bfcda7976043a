"""The embedded store: one SQLite file, safe with several writing processes on one machine.

Rows are packed into records of one page each (`PAGE`), whose keys ascend with the block: replacing a block touches
neighbouring pages, a stream of all edges is one sequential scan, and no Python object is made per row. The views
`nodes` and `edges` unpack them for a look with any SQLite client. Write-ahead logging lets readers work while a block
is written; writers queue for at most `BUSY_SECONDS`. A transaction is on disk when `write_block` returns.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from funlib.geometry import Roi
from typing_extensions import override

from ..errors import UserError
from .block_index import BlockEntry, BlockIndex
from .records import EDGE_RECORD, NODE_RECORD, edge_records, edges_of, node_records, nodes_of
from .sqlite_views import view
from .store import RagStore
from .tables import EdgeTable, NodeTable

BUSY_SECONDS = 120
LAYOUT = 2
"""Kept in the file as `user_version`."""

PAGE = 4000
"""Bytes of records per row: they fill a page of SQLite and never overflow into another."""
PART_BITS = 20
"""A row's key is its block × 2^20 + its number within the block."""

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS blocks (
    block INTEGER PRIMARY KEY,
    begin_z REAL, begin_y REAL, begin_x REAL, end_z REAL, end_y REAL, end_x REAL,
    first_v INTEGER, last_v INTEGER, nodes INTEGER, edges INTEGER, scored INTEGER
);
CREATE INDEX IF NOT EXISTS blocks_by_edges ON blocks (last_v, first_v);
CREATE TABLE IF NOT EXISTS node_records (part INTEGER PRIMARY KEY, records BLOB);
CREATE TABLE IF NOT EXISTS edge_records (part INTEGER PRIMARY KEY, records BLOB);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, text TEXT);
{view("nodes", "node_records", NODE_RECORD, PAGE, PART_BITS)};
{view("edges", "edge_records", EDGE_RECORD, PAGE, PART_BITS)};
PRAGMA user_version = {LAYOUT};
"""


class SqliteRag(RagStore):
    """A graph in a SQLite file.

    Args:
        path: the file; created with its schema if it does not exist.

    Raises:
        UserError: the file cannot be created, is no SQLite database, or was made by an earlier version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._connect()
            self._connection.execute("PRAGMA trusted_schema=OFF")  # the file may be a stranger's
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            if self._layout() != LAYOUT:
                self._create()
        except (OSError, ValueError, sqlite3.DatabaseError) as error:  # ValueError: text in it that is none
            cure = f"; if a run made it, {self._how_to_start_over}" if self._is_damage(error) else ""
            raise UserError(f"{path} cannot be opened as a SQLite graph: {error}{cure}", "rag.url") from error

    def _connect(self) -> sqlite3.Connection:
        """A connection; one that only reads where nothing can be written, on an archive or in another user's folder.

        There SQLite could not make the files beside it that go with write-ahead logging, and would open nothing. It
        does without them if it is told that the file does not change: that holds unless a writer has them open.
        """
        place, is_uri = str(self.path), self.path.exists() and not os.access(self.path.parent, os.W_OK)
        if is_uri:
            settled = not self.path.with_name(f"{self.path.name}-wal").exists()
            place = f"{self.path.absolute().as_uri()}?mode=ro{'&immutable=1' if settled else ''}"
        return sqlite3.connect(place, timeout=BUSY_SECONDS, isolation_level=None, uri=is_uri)

    def _layout(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _create(self) -> None:
        with self._transaction() as connection:
            if self._layout() == LAYOUT:
                return
            if connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                cure = "delete it, and the same command makes it anew"
                raise UserError(
                    f"{self.path} is a database of another kind or of an earlier version; {cure}", "rag.url"
                )
            for statement in SCHEMA.split(";"):
                connection.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _replace_block(self, entry: BlockEntry, nodes: NodeTable, edges: EdgeTable) -> None:
        node_parts = _parts(entry.block, node_records(nodes))
        edge_parts = _parts(entry.block, edge_records(edges))
        with self._transaction() as connection:
            _replace_parts(connection, "node_records", entry.block, node_parts)
            _replace_parts(connection, "edge_records", entry.block, edge_parts)
            _replace_entry(connection, entry)

    @override
    def write_scores(self, block: int, scores: EdgeTable) -> None:
        with self._transaction() as connection:
            with self._decoding():
                (edges,) = self._read_edges([block])
            scored = edges.with_scores(scores)
            _replace_parts(connection, "edge_records", block, _parts(block, edge_records(scored)))
            connection.execute("UPDATE blocks SET scored = ? WHERE block = ?", (scored.scored, block))

    def _block_index(
        self, roi: Roi | None = None, ids: tuple[int, int] | None = None, blocks: Sequence[int] | None = None
    ) -> BlockIndex:
        query, values = "SELECT block, first_v, last_v, nodes, edges, scored FROM blocks", list[int]()
        if roi is not None:
            query += " WHERE begin_z < ? AND begin_y < ? AND begin_x < ? AND end_z >= ? AND end_y >= ? AND end_x >= ?"
            values += [int(bound) for bound in (*roi.end, *roi.begin)]
        if ids is not None:
            query += " WHERE last_v >= ? AND first_v <= ?"
            values += ids
        if blocks is not None:
            query += f" WHERE block IN (SELECT value FROM json_each('{[int(block) for block in blocks]}'))"
        return BlockIndex.of(self._connection.execute(f"{query} ORDER BY block", values).fetchall())

    def _read_nodes(self, blocks: Sequence[int]) -> Iterator[NodeTable]:
        for block in blocks:
            yield nodes_of(self._records("node_records", block))

    def _read_edges(self, blocks: Sequence[int]) -> Iterator[EdgeTable]:
        for block in blocks:
            yield edges_of(self._records("edge_records", block))

    def _records(self, table: str, block: int) -> bytes:
        query = f"SELECT records FROM {table} WHERE part >= ? AND part < ? ORDER BY part"
        return b"".join(records for (records,) in self._connection.execute(query, _part_range(block)))

    @override
    def _is_damage(self, error: Exception) -> bool:
        malformed = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        return malformed or "Could not decode" in str(error) or super()._is_damage(error)

    @property
    @override
    def _how_to_delete(self) -> str:
        return f"delete {self.path} (and {self.path.name}-wal and {self.path.name}-shm beside it)"

    @override
    def notes(self) -> dict[str, str]:
        with self._decoding():
            return dict(self._connection.execute("SELECT name, text FROM notes"))

    @override
    def set_note(self, name: str, text: str | None) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM notes WHERE name = ?", (name,))
            if text is not None:
                connection.execute("INSERT INTO notes VALUES (?, ?)", (name, text))

    @override
    def drop(self) -> None:
        with self._transaction() as connection:
            for table in ("blocks", "node_records", "edge_records", "notes"):
                connection.execute(f"DELETE FROM {table}")

    @override
    def close(self) -> None:
        self._connection.close()


def _part_range(block: int) -> tuple[int, int]:
    return block << PART_BITS, (block + 1) << PART_BITS


def _parts(block: int, records: np.ndarray) -> list[tuple[int, bytes]]:
    """Key and bytes of each row that the records of a block fill."""
    size = PAGE // records.itemsize
    first, _ = _part_range(block)
    starts = range(0, len(records), size)
    return [(first + part, records[start : start + size].tobytes()) for part, start in enumerate(starts)]


def _replace_parts(connection: sqlite3.Connection, table: str, block: int, parts: list[tuple[int, bytes]]) -> None:
    connection.execute(f"DELETE FROM {table} WHERE part >= ? AND part < ?", _part_range(block))
    connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", parts)


def _replace_entry(connection: sqlite3.Connection, entry: BlockEntry) -> None:
    bounds = (*(entry.begin or [None] * 3), *(entry.end or [None] * 3))
    values = (entry.block, *bounds, entry.first_v, entry.last_v, entry.nodes, entry.edges, entry.scored)
    connection.execute(f"INSERT OR REPLACE INTO blocks VALUES ({', '.join('?' * len(values))})", values)
