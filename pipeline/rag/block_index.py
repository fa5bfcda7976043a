"""The index of a store's blocks, read without their rows: where their nodes lie and which edges they contain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from funlib.geometry import Roi

from .tables import EdgeTable, NodeTable

AnyTable = TypeVar("AnyTable", NodeTable, EdgeTable)
Point = tuple[float, float, float]

GROUP_BLOCKS = 100
"""Blocks that are asked for at once, at most."""
GROUP_ROWS = 200_000
"""Rows that are asked for at once, except by a single larger block."""


@dataclass(frozen=True)
class BlockEntry:
    """One row of the index: where a block's nodes lie and how many rows it has.

    Attributes:
        block: its id.
        begin, end: smallest and largest node centre in nanometres, both included; None without nodes.
        first_v, last_v: smallest and largest `v` of its edges; None without edges.
        nodes, edges, scored: rows, and edges with a score.
    """

    block: int
    begin: Point | None
    end: Point | None
    first_v: int | None
    last_v: int | None
    nodes: int
    edges: int
    scored: int

    @staticmethod
    def of(block: int, nodes: NodeTable, edges: EdgeTable) -> BlockEntry:
        """The summary of a block's tables."""
        return BlockEntry(
            block=int(block),
            begin=_point(nodes.centre.min(axis=0)) if len(nodes) else None,
            end=_point(nodes.centre.max(axis=0)) if len(nodes) else None,
            first_v=int(edges.v.min()) if len(edges) else None,
            last_v=int(edges.v.max()) if len(edges) else None,
            nodes=len(nodes),
            edges=len(edges),
            scored=edges.scored,
        )


def _point(values: np.ndarray) -> Point:
    z, y, x = values.tolist()
    return z, y, x


@dataclass(frozen=True)
class BlockIndex:
    """The summaries of many blocks as columns, ascending by block.

    Attributes:
        block: (B,) int64.
        first_v, last_v: (B,) uint64; 1 and 0 of a block without edges.
        nodes, edges, scored: (B,) int64.
    """

    block: np.ndarray
    first_v: np.ndarray
    last_v: np.ndarray
    nodes: np.ndarray
    edges: np.ndarray
    scored: np.ndarray

    @staticmethod
    def of(rows: Sequence[Sequence[int | None]]) -> BlockIndex:
        """From rows (block, first_v, last_v, nodes, edges, scored), ascending by block."""
        block, first_v, last_v, nodes, edges, scored = zip(*rows, strict=True) if rows else ((),) * 6
        counts = (np.array(column, dtype=np.int64) for column in (nodes, edges, scored))
        return BlockIndex(
            np.array(block, dtype=np.int64),
            np.array([1 if value is None else value for value in first_v], dtype=np.uint64),
            np.array([0 if value is None else value for value in last_v], dtype=np.uint64),
            *counts,
        )

    def blocks_containing(self, ids: np.ndarray) -> np.ndarray:
        """Blocks with edges whose `v` may be among ids, which are sorted."""
        first = np.searchsorted(ids, self.first_v)
        return self.block[first < np.searchsorted(ids, self.last_v, side="right")]


def touches(entry: BlockEntry, roi: Roi) -> bool:
    """Whether a node of the block may have its centre in a region."""
    if entry.begin is None or entry.end is None:
        return False
    below = all(low < bound for low, bound in zip(entry.begin, roi.end, strict=True))
    return below and all(high >= bound for high, bound in zip(entry.end, roi.begin, strict=True))


def read_groups(blocks: np.ndarray, rows: np.ndarray | None = None) -> Iterator[list[int]]:
    """Groups of blocks that may be read at once; `rows` are the rows of each block."""
    group: list[int] = []
    total = 0
    sizes = np.zeros(len(blocks), dtype=np.int64) if rows is None else rows
    for block, size in zip(blocks.tolist(), sizes.tolist(), strict=True):
        if group and (len(group) == GROUP_BLOCKS or total + size > GROUP_ROWS):
            yield group
            group, total = [], 0
        group.append(block)
        total += size
    if group:
        yield group


def rebatch(tables: Iterable[AnyTable], rows: int) -> Iterator[AnyTable]:
    """The same rows in tables of `rows` rows, the last one shorter; no more than that and one table are held."""
    waiting: list[AnyTable] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= rows:
            together = type(table).concatenate(waiting)
            whole = len(together) - len(together) % rows
            yield from (together.select(slice(first, first + rows)) for first in range(0, whole, rows))
            waiting = [together.select(slice(whole, None))]
    if any(map(len, waiting)):
        yield type(waiting[0]).concatenate(waiting)
