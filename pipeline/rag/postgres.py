"""The PostgreSQL store: a schema per graph, a row of arrays per block.

Arrays go in by binary COPY and come out as numpy arrays, so that no Python object is made per edge; on disk an edge
takes its 40 bytes and no more. The views `nodes` and `edges` show one row each for SQL. A block is replaced in one
transaction that begins by locking its row in `blocks`. Reads ask for a few blocks at a time: they hold neither memory
nor a transaction for longer than that, and go on after the server was away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from funlib.geometry import Roi
from psycopg import sql
from typing_extensions import override

from ..errors import UserError
from .address import Address
from .block_index import BlockEntry, BlockIndex
from .postgres_arrays import FLOAT8_ARRAY_OID, INT8_ARRAY_OID, ArrayLoader, FloatsDumper, copy_row
from .store import RagStore
from .tables import EdgeTable, NodeTable

CONNECT_SECONDS = 30
LOCK_SECONDS = 120

DRIVER_OPTIONS = {
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "ssl_min_protocol_version", "channel_binding"),
    *("host", "port", "connect_timeout", "target_session_attrs", "application_name", "krbsrvname", "gssencmode"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
}
"""What a URL may hand to libpq."""

NODE_COLUMNS = ("id", "z", "y", "x", "size", "begin_z", "begin_y", "begin_x", "end_z", "end_y", "end_x")
EDGE_COLUMNS = ("u", "v", "count", "affinity_sum", "score")
FLOATS = {"z", "y", "x", "affinity_sum", "score"}
SUMMARY_COLUMNS = "block, begin_z, begin_y, begin_x, end_z, end_y, end_x, first_v, last_v, nodes, edges, scored"

SCHEMA = """
CREATE TABLE {blocks} (
    block int8 PRIMARY KEY,
    begin_z float8, begin_y float8, begin_x float8, end_z float8, end_y float8, end_x float8,
    first_v int8, last_v int8, nodes int8, edges int8, scored int8
);
CREATE INDEX ON {blocks} (last_v, first_v);
CREATE INDEX ON {blocks} (begin_z, end_z);
CREATE TABLE {notes} (name text PRIMARY KEY, text text);
CREATE TABLE {node_arrays} (block int8 PRIMARY KEY, {node_columns});
CREATE TABLE {edge_arrays} (block int8 PRIMARY KEY, {edge_columns});
ALTER TABLE {node_arrays} {node_storage};
ALTER TABLE {edge_arrays} {edge_storage};
CREATE VIEW {nodes} AS SELECT block, node.* FROM {node_arrays}, LATERAL unnest({node_names}) AS node ({node_names});
CREATE VIEW {edges} AS SELECT block, edge.u, edge.v, edge.count, edge.affinity_sum, NULLIF(edge.score, 'NaN') AS score
    FROM {edge_arrays}, LATERAL unnest({edge_names}) AS edge ({edge_names});
"""


class PostgresRag(RagStore):
    """A graph in a schema of a PostgreSQL database.

    Args:
        address: server, database and schema.
        create: make the schema and its tables if they do not exist.

    Raises:
        UserError: no connection, or the role may not do what is needed.
    """

    def __init__(self, address: Address, create: bool = True) -> None:
        self._address = address
        names = ("blocks", "notes", "node_arrays", "edge_arrays", "nodes", "edges")
        self._names = {name: sql.Identifier(address.graph, name) for name in names}
        self._connection: psycopg.Connection | None = None
        try:
            if create and not self.exists():
                self._create()
            else:
                self._connected()
        except (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege) as error:
            self.close()
            raise UserError(f"the PostgreSQL graph {address.graph!r} cannot be opened: {error}", "rag.url") from error

    def exists(self) -> bool:
        """Whether the schema holds a graph."""
        query = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = %s AND tablename = 'edge_arrays'"
        with self._session() as connection:
            return connection.execute(query, (self._address.graph,)).fetchone() is not None

    def _create(self) -> None:
        schema = sql.Identifier(self._address.graph)
        parts = self._names | {
            "node_columns": _array_columns(NODE_COLUMNS),
            "edge_columns": _array_columns(EDGE_COLUMNS),
            "node_storage": _uncompressed(NODE_COLUMNS),
            "edge_storage": _uncompressed(EDGE_COLUMNS),
            "node_names": _listed(NODE_COLUMNS),
            "edge_names": _listed(EDGE_COLUMNS),
        }
        with self._transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"emdistill {self._address.graph}",))
            if self.exists():
                return  # another process was faster
            known = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s"
            if connection.execute(known, (self._address.graph,)).fetchone() is None:
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
            for statement in SCHEMA.strip().removesuffix(";").split(";"):
                connection.execute(sql.SQL(statement).format(**parts))

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = _connect(self._address)
        return self._connection

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection]:
        """The connection; one that breaks is given up, so that the next call makes another."""
        connection = self._connected()
        try:
            yield connection
        except psycopg.Error:
            if connection.broken or connection.closed:
                self.close()
            raise

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection]:
        with self._session() as connection, connection.transaction():
            yield connection

    def _sql(self, text: str, **more: sql.Composable) -> sql.Composed:
        return sql.SQL(text).format(**self._names, **more)

    def _replace_block(self, entry: BlockEntry, nodes: NodeTable, edges: EdgeTable) -> None:
        node_row = copy_row(entry.block, [nodes.id, *nodes.centre.T, nodes.size, *nodes.begin.T, *nodes.end.T])
        edge_row = copy_row(entry.block, [edges.u, edges.v, edges.count, edges.affinity_sum, edges.score])
        with self._transaction() as connection:
            self._replace_entry(connection, entry)
            for table, row in (("node_arrays", node_row), ("edge_arrays", edge_row)):
                name = self._names[table]
                connection.execute(sql.SQL("DELETE FROM {} WHERE block = %s").format(name), (entry.block,))
                with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(name)) as copy:
                    copy.write(row)

    def _replace_entry(self, connection: psycopg.Connection, entry: BlockEntry) -> None:
        bounds = (*(entry.begin or [None] * 3), *(entry.end or [None] * 3))
        values = (entry.block, *bounds, entry.first_v, entry.last_v, entry.nodes, entry.edges, entry.scored)
        columns = SUMMARY_COLUMNS.split(", ")
        updates = sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name)) for name in columns[1:])
        query = "INSERT INTO {blocks} VALUES ({values}) ON CONFLICT (block) DO UPDATE SET {updates}"
        places = sql.SQL(", ").join([sql.Placeholder()] * len(values))
        connection.execute(self._sql(query, values=places, updates=updates), values)

    @override
    def write_scores(self, block: int, scores: EdgeTable) -> None:
        with self._transaction() as connection:
            connection.execute(self._sql("SELECT FROM {blocks} WHERE block = %s FOR UPDATE"), (block,))
            with self._decoding():
                (edges,) = self._read_edges([block])
            scored = edges.with_scores(scores)
            update = self._sql("UPDATE {edge_arrays} SET score = %s WHERE block = %s")
            connection.execute(update, (scored.score, block))
            connection.execute(self._sql("UPDATE {blocks} SET scored = %s WHERE block = %s"), (scored.scored, block))

    def _block_index(
        self, roi: Roi | None = None, ids: tuple[int, int] | None = None, blocks: Sequence[int] | None = None
    ) -> BlockIndex:
        query, values = "SELECT block, first_v, last_v, nodes, edges, scored FROM {blocks}", list[Any]()
        if roi is not None:
            query += (
                " WHERE begin_z < %s AND begin_y < %s AND begin_x < %s AND end_z >= %s AND end_y >= %s AND end_x >= %s"
            )
            values += [int(bound) for bound in (*roi.end, *roi.begin)]
        if ids is not None:
            query += " WHERE last_v >= %s AND first_v <= %s"
            values += ids
        if blocks is not None:
            query += " WHERE block = ANY(%s)"
            values.append([int(block) for block in blocks])
        with self._session() as connection:
            return BlockIndex.of(connection.execute(self._sql(query + " ORDER BY block"), values).fetchall())

    def _read_nodes(self, blocks: Sequence[int]) -> Iterator[NodeTable]:
        return self._read("node_arrays", NODE_COLUMNS, blocks, _node_table, NodeTable.empty)

    def _read_edges(self, blocks: Sequence[int]) -> Iterator[EdgeTable]:
        return self._read("edge_arrays", EDGE_COLUMNS, blocks, _edge_table, EdgeTable.empty)

    def _read(
        self,
        table: str,
        columns: Sequence[str],
        blocks: Sequence[int],
        make: Callable[[Sequence[np.ndarray]], Any],
        empty: Callable[[], Any],
    ) -> Iterator[Any]:
        query = "SELECT block, {columns} FROM {table} WHERE block = ANY(%s)"
        parts = {"columns": _listed(columns), "table": self._names[table]}
        with self._session() as connection:
            rows = connection.execute(sql.SQL(query).format(**parts), (list(blocks),), binary=True).fetchall()
        found = {row[0]: row[1:] for row in rows}
        return (make(found[block]) if block in found else empty() for block in blocks)

    @override
    def notes(self) -> dict[str, str]:
        with self._session() as connection:
            return dict(connection.execute(self._sql("SELECT name, text FROM {notes}")).fetchall())

    @override
    def set_note(self, name: str, text: str | None) -> None:
        with self._transaction() as connection:
            connection.execute(self._sql("DELETE FROM {notes} WHERE name = %s"), (name,))
            if text is not None:
                connection.execute(self._sql("INSERT INTO {notes} VALUES (%s, %s)"), (name, text))

    @override
    def drop(self) -> None:
        with self._transaction() as connection:
            connection.execute(self._sql("TRUNCATE {blocks}, {notes}, {node_arrays}, {edge_arrays}"))

    @override
    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _connect(address: Address) -> psycopg.Connection:
    """A connection on which every statement is a transaction of its own unless one is begun.

    What the address leaves out comes from libpq's environment variables and files (PGHOST, PGPASSFILE, …).
    """
    given: dict[str, str | None] = {
        "host": ",".join(host for host, _ in address.servers),
        "port": ",".join(port for _, port in address.servers),
        "user": address.user,
        "password": address.password,
        "dbname": address.database,
        "connect_timeout": str(CONNECT_SECONDS),
        "application_name": "emdistill",
        **address.options,
    }
    parameters: dict[str, Any] = {name: value for name, value in given.items() if value}
    connection = psycopg.connect("", autocommit=True, prepare_threshold=None, **parameters)
    connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
    for array in (INT8_ARRAY_OID, FLOAT8_ARRAY_OID):
        connection.adapters.register_loader(array, ArrayLoader)
    connection.adapters.register_dumper(np.ndarray, FloatsDumper)
    return connection


def _listed(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _array_columns(columns: Sequence[str]) -> sql.Composed:
    definition = sql.SQL("{} {}[]")
    kinds = [sql.SQL("float8" if name in FLOATS else "int8") for name in columns]
    return sql.SQL(", ").join(
        definition.format(sql.Identifier(name), kind) for name, kind in zip(columns, kinds, strict=True)
    )


def _uncompressed(columns: Sequence[str]) -> sql.Composed:
    """Compression would cost more time than it saves space."""
    change = sql.SQL("ALTER {} SET STORAGE EXTERNAL")
    return sql.SQL(", ").join(change.format(sql.Identifier(name)) for name in columns)


def _node_table(columns: Sequence[np.ndarray]) -> NodeTable:
    number, z, y, x, size, *box = columns
    return NodeTable(
        number.astype(np.uint64), np.stack([z, y, x], 1), size, np.stack(box[:3], axis=1), np.stack(box[3:], axis=1)
    )


def _edge_table(columns: Sequence[np.ndarray]) -> EdgeTable:
    u, v, count, affinity_sum, score = columns
    return EdgeTable(u.astype(np.uint64), v.astype(np.uint64), count, affinity_sum, score)
