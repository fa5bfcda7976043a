"""How a graph of any size joins the fragments of a region, at a few thresholds: what has a row per fragment or edge is
on disk meanwhile.

Fragments of the region may be joined through others far away. So all edges up to each threshold are gone through, from
the lowest threshold up (union-find), and after each of them it is noted which segments the region's fragments are in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..disk_arrays import DiskArray, DiskTable, chunks
from ..errors import UserError
from ..rag import EdgeTable, FragmentIds, RagStore


def edges_among(store: RagStore, fragments: np.ndarray, thresholds: Sequence[float], folder: Path) -> EdgeTable:
    """A few edges that join some fragments as the whole graph does, at some thresholds.

    Args:
        store: the graph, with merge scores.
        fragments: (M,) uint64 ids, sorted, each once; ids that the graph does not know are joined with nothing.
        thresholds: at which the result is asked; of any others it says nothing.
        folder: has room for 16 bytes per fragment and 18 per edge.

    Returns:
        Edges, sorted, whose scores are thresholds, between these fragments and the smallest ones of their segments. So
        at each of the thresholds a segment has the same smallest fragment. They have no contacts.

    Raises:
        UserError: the graph has a fragment twice or too few of them, more edges than it says or
            edges between fragments that it does not have, or the disk is full.
    """
    from ..segmentation.union_find import join, roots_of  # compiled: whoever evaluates nothing large needs no compiler

    levels = np.unique(np.asarray(thresholds, np.float64))
    ids = _fragments_on_disk(store, folder)
    ranked = _ranked_edges(store, ids, levels, folder)
    u, v, level_of = ranked.columns
    parent = DiskArray(folder, len(ids.values), np.int64)
    for part in chunks(len(ids.values)):
        parent.values[part] = np.arange(part.start, part.stop)
        parent.release()
    known, rows = ids.rows_of(fragments)
    members, root_before, found = fragments[known], rows[known], [EdgeTable.empty()]
    for level, threshold in enumerate(levels.tolist()):
        for part in ranked.portions():
            chosen = part.start + np.flatnonzero(level_of[part] == level)
            join(parent.values, np.array(u[chosen]), np.array(v[chosen]))
            parent.release()
        root = roots_of(parent.values, rows[known])
        changed = root != root_before
        pairs = np.stack([ids.values[root[changed]], members[changed]], axis=1)
        table = EdgeTable.of(pairs, np.ones(len(pairs)), np.zeros(len(pairs)))
        found.append(replace(table, score=np.full(len(pairs), threshold)))
        root_before = root
        parent.release()
        ids.release()
    edges = EdgeTable.concatenate(found)
    return edges.select(np.lexsort((edges.v, edges.u)))


def _fragments_on_disk(store: RagStore, folder: Path) -> FragmentIds:
    """All fragments."""
    ids = FragmentIds(folder, store.counts().nodes)
    for nodes in store.iterate_nodes():
        ids.add(nodes)
    if not ids.are_all:
        raise UserError("the graph has a fragment twice, or not as many as it says", "rag.url")
    return ids


def _ranked_edges(store: RagStore, ids: FragmentIds, levels: np.ndarray, folder: Path) -> DiskTable:
    """Of each edge the rows of both fragments, int64, and the first level that joins them, uint16: as many as there are
    levels if none does.
    """
    table = DiskTable(folder, store.counts().edges, np.int64, np.int64, np.uint16)
    for edges in store.iterate_edges():
        ends = [ids.rows_of(fragments) for fragments in (edges.u, edges.v)]
        if not all(known.all() for known, _ in ends):
            raise UserError("the graph has edges between fragments that it does not have", "rag.url")
        level = np.searchsorted(levels, edges.score, side="left")  # NaN comes after all
        table.add(*(rows for _, rows in ends), level)
        ids.release()
    if table.overflows:
        raise UserError("the graph has more edges than it says", "rag.url")
    return table
