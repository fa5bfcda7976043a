"""The stores that `rag.py` compares, ours by URL and the graph writer of funlib.persistence, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import psycopg
from funlib.geometry import Roi
from funlib.persistence.graphs import PgSQLGraphDatabase, SQLiteGraphDataBase
from funlib.persistence.graphs.sql_graph_database import SQLGraphDataBase
from funlib.persistence.types import Vec
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from typing_extensions import override

from pipeline.rag import EdgeTable, NodeTable, open_rag

NODE_SPACING = 100
"""Nanometres between neighbouring nodes of a block, on average."""


@dataclass(frozen=True)
class Data:
    """Blocks of a made-up graph, the same for all stores.

    Attributes:
        blocks: along x.
        nodes, edges: per block.
    """

    blocks: int
    nodes: int
    edges: int

    @property
    def extent(self) -> int:
        """Edge of a block in nanometres."""
        result: int = round(NODE_SPACING * self.nodes ** (1 / 3))
        return result

    @property
    def roi(self) -> Roi:
        """About one block, lying across two of them."""
        return Roi((0, 0, (self.blocks // 2) * self.extent - self.extent // 2), (self.extent,) * 3)

    def block(self, index: int) -> tuple[NodeTable, EdgeTable]:
        """The nodes and edges of a block."""
        rng = np.random.default_rng(index)
        ids = np.uint64(index * 2_000_000) + np.arange(1, self.nodes + 1, dtype=np.uint64)
        begin = rng.integers(0, 1000, (self.nodes, 3))
        centre = rng.uniform(0, self.extent, (self.nodes, 3)) + np.array([0, 0, index * self.extent])
        nodes = NodeTable(ids, centre, rng.integers(1, 10_000, self.nodes), begin, begin + 9)
        pairs = np.unique(np.sort(rng.integers(0, self.nodes, (2 * self.edges, 2)), axis=1), axis=0)
        pairs = rng.permutation(pairs[pairs[:, 0] < pairs[:, 1]])[: self.edges]
        return nodes, EdgeTable.of(ids[pairs], rng.integers(1, 500, len(pairs)), rng.uniform(0, 90, len(pairs)))

    def all_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all nodes, and the pairs of all edges."""
        tables = [self.block(index) for index in range(self.blocks)]
        return np.concatenate([n.id for n, _ in tables]), np.concatenate([e.pairs for _, e in tables])


Rows = tuple[np.ndarray, np.ndarray]
"""Ids (N,) and pairs (E, 2)."""


class Contender(ABC):
    """A graph store that is measured."""

    @abstractmethod
    def create(self) -> None:
        """Create the store, without any rows."""

    @abstractmethod
    def writers(self, data: Data, blocks: list[int]) -> list[Callable[[], object]]:
        """A function per block that writes it; everything else is prepared before."""

    @abstractmethod
    def read_all(self) -> Rows:
        """Read every row; how many there are."""

    @abstractmethod
    def read_region(self, roi: Roi) -> Rows:
        """The nodes of a region and their edges."""

    @abstractmethod
    def remove(self) -> None:
        """Delete the store."""


class Ours(Contender):
    """A store of pipeline.rag."""

    def __init__(self, url: str) -> None:
        self.url = url

    @override
    def create(self) -> None:
        with open_rag(self.url) as store:
            store.drop()

    @override
    def writers(self, data: Data, blocks: list[int]) -> list[Callable[[], object]]:
        store = open_rag(self.url)
        tables = {block: data.block(block) for block in blocks}
        return [partial(store.write_block, block, *tables[block]) for block in blocks]

    @override
    def read_all(self) -> Rows:
        with open_rag(self.url) as store:
            ids = [nodes.id for nodes in store.iterate_nodes()]
            return np.concatenate(ids), np.concatenate([edges.pairs for edges in store.iterate_edges()])

    @override
    def read_region(self, roi: Roi) -> Rows:
        with open_rag(self.url) as store:
            return store.read_nodes(roi).id, store.read_edges(roi).pairs

    @override
    def remove(self) -> None:
        with open_rag(self.url) as store:
            store.drop()


class Funlib(Contender):
    """A graph of funlib.persistence, written as networkx graphs."""

    @abstractmethod
    def database(self, mode: str) -> SQLGraphDataBase:
        """Open the store."""

    @override
    def create(self) -> None:
        self.database("w")

    @override
    def writers(self, data: Data, blocks: list[int]) -> list[Callable[[], object]]:
        database = self.database("r+")
        graphs = [as_networkx(*data.block(block)) for block in blocks]
        return [partial(database.write_graph, graph) for graph in graphs]

    @override
    def read_all(self) -> Rows:
        return _rows(self.database("r").read_graph())

    @override
    def read_region(self, roi: Roi) -> Rows:
        return _rows(self.database("r").read_graph(roi))


class FunlibSqlite(Funlib):
    """funlib's graph in a SQLite file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @override
    def database(self, mode: str) -> SQLGraphDataBase:
        return SQLiteGraphDataBase(self.path, "position", mode, **_attributes(mode))

    @override
    def remove(self) -> None:
        self.path.unlink()


class FunlibPostgres(Funlib):
    """In a PostgreSQL database of its own."""

    name = "emdistill_benchmark"

    def __init__(self, url: str) -> None:
        self.url = url

    @override
    def database(self, mode: str) -> SQLGraphDataBase:
        known: dict[str, Any] = dict(conninfo_to_dict(self.url))
        return PgSQLGraphDatabase(
            "position",
            self.name,
            db_host=known["host"],
            db_port=known.get("port"),
            db_user=known.get("user"),
            db_password=known.get("password"),
            mode=mode,
            **_attributes(mode),
        )

    @override
    def remove(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(statement.format(sql.Identifier(self.name)))


def as_networkx(nodes: NodeTable, edges: EdgeTable) -> nx.Graph:
    """What funlib writes: as many attributes as our tables have columns, bounding boxes left out."""
    graph = nx.Graph()
    for node, centre, size in zip(nodes.id.tolist(), nodes.centre.tolist(), nodes.size.tolist(), strict=True):
        graph.add_node(node, position=centre, size=size)
    for (u, v), count, total in zip(
        edges.pairs.tolist(), edges.count.tolist(), edges.affinity_sum.tolist(), strict=True
    ):
        graph.add_edge(u, v, count=count, affinity_sum=total)
    return graph


def _attributes(mode: str) -> dict[str, Any]:
    if mode != "w":
        return {}
    return {
        "node_attrs": {"position": Vec(float, 3), "size": int},
        "edge_attrs": {"count": int, "affinity_sum": float},
    }


def _rows(graph: nx.Graph) -> Rows:
    pairs = np.array(graph.edges, dtype=np.uint64).reshape(-1, 2)
    return np.array(graph.nodes, dtype=np.uint64), np.sort(pairs, axis=1)
