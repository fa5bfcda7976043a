"""Edges between clusters, with exact sums: what average linkage works on, and what one region leaves for the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

UNIT = 2.0**-26
"""Affinities are summed in multiples of this (see `graph.py`), so that sums are whole numbers."""


@dataclass(frozen=True)
class ClusterEdges:
    """Edges between clusters, each pair of clusters once.

    Attributes:
        u, v: (E,) uint64, the smallest fragments of the two clusters, in any order.
        first_u, first_v: (E,) uint64, of the edges between fragments that became one the smallest: of equal scores, the
            edge for which this is smallest is merged first.
        sums: (E,) int64, affinities of the contacts in multiples of `UNIT`.
        counts: (E,) int64, contacts.
    """

    u: np.ndarray
    v: np.ndarray
    first_u: np.ndarray
    first_v: np.ndarray
    sums: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.u)

    @staticmethod
    def of_fragments(u: np.ndarray, v: np.ndarray, affinity_sum: np.ndarray, count: np.ndarray) -> ClusterEdges:
        """The edges between fragments (E,), with the sums of their affinities in [0, 1].

        Raises:
            ValueError: a sum is no multiple of 2**-26, or an edge has no contact.
        """
        sums = np.rint(affinity_sum / UNIT)
        if not np.array_equal(sums * UNIT, affinity_sum):
            raise ValueError("a sum of affinities is no multiple of 2**-26, as region_graph makes them")
        if len(count) and np.min(count) < 1:
            raise ValueError("an edge has no contact")
        low, high = np.asarray(np.minimum(u, v), np.uint64), np.asarray(np.maximum(u, v), np.uint64)
        return ClusterEdges(low, high, low, high, sums.astype(np.int64), np.asarray(count, np.int64))

    @staticmethod
    def empty() -> ClusterEdges:
        """No edges."""
        ids, numbers = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        return ClusterEdges(ids, ids, ids, ids, numbers, numbers)

    def select(self, rows: np.ndarray | slice) -> ClusterEdges:
        """The rows of an index, mask or slice."""
        return ClusterEdges(*(column[rows] for column in self.columns()))

    def columns(self) -> list[np.ndarray]:
        """All columns, in the order of the attributes."""
        return [getattr(self, field.name) for field in fields(self)]

    @staticmethod
    def concatenate(tables: Sequence[ClusterEdges]) -> ClusterEdges:
        """All rows of several tables, in order."""
        columns = zip(*(table.columns() for table in [ClusterEdges.empty(), *tables]), strict=True)
        return ClusterEdges(*(np.concatenate(column) for column in columns))
