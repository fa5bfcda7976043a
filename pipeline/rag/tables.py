"""Nodes and edges as columns: what a block hands to the store, and what the store hands back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np


@dataclass(frozen=True)
class NodeTable:
    """Fragments, one per row.

    Attributes:
        id: (N,) uint64, unique in the whole graph.
        centre: (N, 3) float64, centre of mass in nanometres, order z, y, x.
        size: (N,) int64, voxels.
        begin: (N, 3) int64, first voxel of the bounding box, counted in the stored arrays.
        end: (N, 3) int64, one past its last voxel.
    """

    id: np.ndarray
    centre: np.ndarray
    size: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.id)

    @staticmethod
    def empty() -> NodeTable:
        """A table without rows."""
        vectors = np.zeros((0, 3), dtype=np.int64)
        return NodeTable(
            np.zeros(0, dtype=np.uint64), np.zeros((0, 3)), np.zeros(0, dtype=np.int64), vectors, vectors.copy()
        )

    def select(self, rows: np.ndarray | slice) -> NodeTable:
        """The rows of an index, mask or slice."""
        return NodeTable(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @staticmethod
    def concatenate(tables: Iterable[NodeTable]) -> NodeTable:
        """All rows of several tables, in order."""
        tables = [NodeTable.empty(), *tables]
        return NodeTable(
            **{field.name: np.concatenate([getattr(t, field.name) for t in tables]) for field in fields(NodeTable)}
        )


@dataclass(frozen=True)
class EdgeTable:
    """Contacts between fragments, u < v.

    Attributes:
        u, v: (E,) uint64, the fragments.
        count: (E,) int64, voxel pairs in contact.
        affinity_sum: (E,) float64, sum of their affinities, each in [0, 1].
        score: (E,) float64, merge score in [0, 1] (1 - affinity: small ones merge first); 2 where the classes of
            the fragments forbid a join; NaN where none was set.
    """

    u: np.ndarray
    v: np.ndarray
    count: np.ndarray
    affinity_sum: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.u)

    @property
    def mean_affinity(self) -> np.ndarray:
        """(E,) float64, mean affinity of the contacts."""
        result: np.ndarray = self.affinity_sum / self.count
        return result

    @property
    def scored(self) -> int:
        """Number of edges with a score."""
        return int(np.count_nonzero(~np.isnan(self.score)))

    @property
    def pairs(self) -> np.ndarray:
        """(E, 2) uint64, the fragments of each edge."""
        return np.stack([self.u, self.v], axis=1)

    @staticmethod
    def empty() -> EdgeTable:
        """A table without rows."""
        ids = np.zeros(0, dtype=np.uint64)
        return EdgeTable(ids, ids.copy(), np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0))

    @staticmethod
    def of(pairs: np.ndarray, count: np.ndarray, affinity_sum: np.ndarray) -> EdgeTable:
        """Edges without scores from pairs (E, 2), counts and affinity sums."""
        pairs = np.asarray(pairs, dtype=np.uint64).reshape(-1, 2)
        return EdgeTable(
            pairs[:, 0].copy(),
            pairs[:, 1].copy(),
            np.asarray(count, dtype=np.int64),
            np.asarray(affinity_sum, dtype=np.float64),
            np.full(len(pairs), np.nan),
        )

    def select(self, rows: np.ndarray | slice) -> EdgeTable:
        """The rows of an index, mask or slice."""
        return EdgeTable(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @staticmethod
    def concatenate(tables: Iterable[EdgeTable]) -> EdgeTable:
        """All rows of several tables, in order."""
        tables = [EdgeTable.empty(), *tables]
        return EdgeTable(
            **{field.name: np.concatenate([getattr(t, field.name) for t in tables]) for field in fields(EdgeTable)}
        )

    def with_scores(self, scores: EdgeTable) -> EdgeTable:
        """These edges with the scores that another table has for them; the others lose theirs.

        Args:
            scores: edges in any order; those that are not in this table do not matter.
        """
        together = EdgeTable.concatenate([scores, self])
        own = np.arange(len(together)) >= len(scores)
        order = np.lexsort((own, together.v, together.u))
        u, v, own = together.u[order], together.v[order], own[order]
        found = np.flatnonzero(own[1:] & ~own[:-1] & (u[1:] == u[:-1]) & (v[1:] == v[:-1])) + 1
        score = np.full(len(self), np.nan)
        score[order[found] - len(scores)] = together.score[order[found - 1]]
        return replace(self, score=score)

    def summed(self) -> EdgeTable:
        """One row per pair, sorted by (u, v): counts and affinities added up, the score is the largest that was set."""
        order = np.lexsort((self.v, self.u))
        table = self.select(order)
        if not len(table):
            return table
        first = np.ones(len(table), dtype=bool)
        first[1:] = (table.u[1:] != table.u[:-1]) | (table.v[1:] != table.v[:-1])
        if first.all():
            return table
        starts = np.flatnonzero(first)
        return EdgeTable(
            table.u[starts],
            table.v[starts],
            np.add.reduceat(table.count, starts),
            np.add.reduceat(table.affinity_sum, starts),
            np.fmax.reduceat(table.score, starts),
        )
