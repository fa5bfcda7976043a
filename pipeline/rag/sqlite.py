"""The embedded store: one SQLite file, safe with several writing processes on one machine.

Rows are clustered by block (the primary key starts with it and no other index exists), so that replacing a block
touches neighbouring pages and a stream of all edges is one sequential scan. Write-ahead logging lets readers work while
a block is written; writers queue for at most `BUSY_SECONDS`. A transaction is on disk when `write_block` returns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from funlib.geometry import Roi

from ..errors import UserError
from .store import RagCounts, RagStore
from .tables import EdgeTable, NodeTable

BUSY_SECONDS = 120

SCHEMA = """
CREATE TABLE IF NOT EXISTS blocks (
    block INTEGER PRIMARY KEY,
    begin_z REAL, begin_y REAL, begin_x REAL, end_z REAL, end_y REAL, end_x REAL
);
CREATE TABLE IF NOT EXISTS nodes (
    block INTEGER, id INTEGER, z REAL, y REAL, x REAL, size INTEGER,
    begin_z INTEGER, begin_y INTEGER, begin_x INTEGER, end_z INTEGER, end_y INTEGER, end_x INTEGER,
    PRIMARY KEY (block, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS edges (
    block INTEGER, u INTEGER, v INTEGER, count INTEGER, affinity_sum REAL, score REAL,
    PRIMARY KEY (block, u, v)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, text TEXT);
"""

NODE_COLUMNS = "id, z, y, x, size, begin_z, begin_y, begin_x, end_z, end_y, end_x"
EDGE_COLUMNS = "u, v, count, affinity_sum, score"


class SqliteRag(RagStore):
    """A graph in a SQLite file.

    Args:
        path: the file; created with its schema if it does not exist.

    Raises:
        UserError: the file cannot be created, or is no SQLite database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            with self._transaction():
                for statement in SCHEMA.split(";"):
                    self._connection.execute(statement)
        except (OSError, sqlite3.DatabaseError) as error:
            raise UserError(f"{path} cannot be opened as a SQLite graph: {error}", "rag.url") from error

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

    def write_block(self, block: int, nodes: NodeTable, edges: EdgeTable) -> None:
        bounds = [*nodes.centre.min(axis=0), *nodes.centre.max(axis=0)] if len(nodes) else [None] * 6
        with self._transaction() as connection:
            connection.execute("DELETE FROM nodes WHERE block = ?", (block,))
            connection.execute("DELETE FROM edges WHERE block = ?", (block,))
            connection.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?)", (block, *bounds))
            connection.executemany(f"INSERT INTO nodes VALUES ({block:d}{', ?' * 11})", _node_rows(nodes))
            connection.executemany(f"INSERT INTO edges VALUES ({block:d}{', ?' * 5})", _edge_rows(edges))

    def write_scores(self, block: int, scores: EdgeTable) -> None:
        rows = zip(scores.score.tolist(), _integers(scores.u), _integers(scores.v), strict=True)
        with self._transaction() as connection:
            connection.execute("UPDATE edges SET score = NULL WHERE block = ? AND score IS NOT NULL", (block,))
            connection.executemany(f"UPDATE edges SET score = ? WHERE block = {block:d} AND u = ? AND v = ?", rows)

    def clear_scores(self) -> None:
        with self._transaction() as connection:
            connection.execute("UPDATE edges SET score = NULL WHERE score IS NOT NULL")

    def blocks(self) -> np.ndarray:
        rows = self._connection.execute("SELECT block FROM blocks ORDER BY block").fetchall()
        return np.array([row[0] for row in rows], dtype=np.int64)

    def iterate_nodes(self, rows: int = 1_000_000) -> Iterator[NodeTable]:
        cursor = self._connection.execute(f"SELECT {NODE_COLUMNS} FROM nodes ORDER BY block, id")
        while chunk := cursor.fetchmany(rows):
            yield _nodes(chunk)

    def iterate_edges(self, rows: int = 1_000_000) -> Iterator[EdgeTable]:
        cursor = self._connection.execute(f"SELECT {EDGE_COLUMNS} FROM edges ORDER BY block, u, v")
        while chunk := cursor.fetchmany(rows):
            yield _edges(chunk)

    def read_nodes(self, roi: Roi | None = None) -> NodeTable:
        if roi is None:
            table = NodeTable.concatenate(self.iterate_nodes())
        else:
            table = NodeTable.concatenate(self._nodes_of_block(block) for block in self._blocks_touching(roi))
            inside = np.all((table.centre >= np.array(roi.begin)) & (table.centre < np.array(roi.end)), axis=1)
            table = table.select(inside)
        return table.select(np.argsort(table.id))

    def read_edges(self, roi: Roi | None = None) -> EdgeTable:
        if roi is None:
            return EdgeTable.concatenate(self.iterate_edges()).summed()
        inside = self.read_nodes(roi).id
        portions = []
        for block in self._blocks_touching(roi):
            edges = self._edges_of_block(block)
            portions.append(edges.select(np.isin(edges.u, inside) & np.isin(edges.v, inside)))
        return EdgeTable.concatenate(portions).summed()

    def counts(self) -> RagCounts:
        def count(query: str) -> int:
            return int(self._connection.execute(query).fetchone()[0])

        return RagCounts(
            blocks=count("SELECT COUNT(*) FROM blocks"),
            nodes=count("SELECT COUNT(*) FROM nodes"),
            edges=count("SELECT COUNT(*) FROM edges"),
            scored_edges=count("SELECT COUNT(score) FROM edges"),
        )

    def note(self, name: str) -> str | None:
        row = self._connection.execute("SELECT text FROM notes WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_note(self, name: str, text: str | None) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM notes WHERE name = ?", (name,))
            if text is not None:
                connection.execute("INSERT INTO notes VALUES (?, ?)", (name, text))

    def drop(self) -> None:
        with self._transaction() as connection:
            for table in ("blocks", "nodes", "edges", "notes"):
                connection.execute(f"DELETE FROM {table}")

    def close(self) -> None:
        self._connection.close()

    def _blocks_touching(self, roi: Roi) -> list[int]:
        """Blocks with a node centre that may lie in the region."""
        query = (
            "SELECT block FROM blocks WHERE begin_z < ? AND begin_y < ? AND begin_x < ? "
            "AND end_z >= ? AND end_y >= ? AND end_x >= ? ORDER BY block"
        )
        return [row[0] for row in self._connection.execute(query, (*_integers(roi.end), *_integers(roi.begin)))]

    def _nodes_of_block(self, block: int) -> NodeTable:
        query = f"SELECT {NODE_COLUMNS} FROM nodes WHERE block = ? ORDER BY id"
        return _nodes(self._connection.execute(query, (block,)).fetchall())

    def _edges_of_block(self, block: int) -> EdgeTable:
        query = f"SELECT {EDGE_COLUMNS} FROM edges WHERE block = ? ORDER BY u, v"
        return _edges(self._connection.execute(query, (block,)).fetchall())


def _integers(values: Sequence[int] | np.ndarray) -> list[int]:
    """Python integers; SQLite has signed 64-bit ones, far more than a volume has voxels."""
    return [int(value) for value in values] if not isinstance(values, np.ndarray) else values.astype(np.int64).tolist()


def _node_rows(nodes: NodeTable) -> Iterator[tuple[Any, ...]]:
    columns = [_integers(nodes.id), *nodes.centre.T.tolist(), nodes.size.tolist()]
    columns += [*nodes.begin.T.tolist(), *nodes.end.T.tolist()]
    return zip(*columns, strict=True)


def _edge_rows(edges: EdgeTable) -> Iterator[tuple[Any, ...]]:
    scores = [None if np.isnan(score) else score for score in edges.score.tolist()]
    columns = (_integers(edges.u), _integers(edges.v), edges.count.tolist(), edges.affinity_sum.tolist(), scores)
    return zip(*columns, strict=True)


def _nodes(rows: list[tuple[Any, ...]]) -> NodeTable:
    if not rows:
        return NodeTable.empty()
    columns = list(zip(*rows, strict=True))
    return NodeTable(
        np.array(columns[0], dtype=np.uint64),
        np.array(columns[1:4], dtype=np.float64).T,
        np.array(columns[4], dtype=np.int64),
        np.array(columns[5:8], dtype=np.int64).T,
        np.array(columns[8:11], dtype=np.int64).T,
    )


def _edges(rows: list[tuple[Any, ...]]) -> EdgeTable:
    if not rows:
        return EdgeTable.empty()
    u, v, count, affinity_sum, score = zip(*rows, strict=True)
    return EdgeTable(
        np.array(u, dtype=np.uint64),
        np.array(v, dtype=np.uint64),
        np.array(count, dtype=np.int64),
        np.array(affinity_sum, dtype=np.float64),
        np.array(score, dtype=np.float64),
    )
