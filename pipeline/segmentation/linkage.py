"""Agglomeration on the whole graph: exact average linkage, independent of blocks.

Fragments are merged in the order of the mean affinity between them, which is averaged anew, weighted by contacts,
whenever two edges become one. The *merge score* of an edge is the score (1 - mean affinity) at which its two fragments
end up in one segment. Average linkage never goes back below a score it has passed, so the segments at threshold t are
the connected components of the edges with merge scores of at most t: one pass gives every threshold.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from .components import connected_components, unique_ids

if TYPE_CHECKING:
    import higra

SCORE_DECIMALS = 6
"""Scores are rounded to so many decimals: a threshold of 0.4 includes an average of 0.4 whatever its last bit."""

_BEYOND_EVERY_SCORE = 4.0


def agglomerate_global(
    edges: np.ndarray,
    mean: np.ndarray,
    count: np.ndarray,
    thresholds: Iterable[float],
    nodes: np.ndarray | None = None,
) -> dict[float, np.ndarray]:
    """Segments by exact average linkage, at several thresholds.

    Args:
        edges: (E, 2) fragment ids, in any order, each pair once.
        mean: (E,) mean affinity in [0, 1].
        count: (E,) contacts.
        thresholds: largest scores (1 - affinity) that merge; larger merges more.
        nodes: ids of all fragments; those without an edge keep their own id. Default: the ids in `edges`.

    Returns:
        For each threshold a LUT (N, 2) uint64 of fragment id and segment id, sorted by fragment id; a segment carries
        the smallest id of its fragments. Independent of the order and direction of the edges.
    """
    scores = merge_scores(edges, mean, count)
    ids = unique_ids(nodes, edges)
    return {threshold: connected_components(ids, edges, scores, threshold) for threshold in thresholds}


def merge_scores(edges: np.ndarray, mean: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The score in [0, 1] at which the two fragments of each edge end up in one segment, under average linkage.

    Args:
        edges, mean, count: as for `agglomerate_global`.

    Returns:
        (E,) float64, in the order of `edges`.

    Raises:
        ValueError: the arrays differ in length, an edge occurs twice, or it joins a fragment with itself.
    """
    edges = np.asarray(edges, np.uint64).reshape(-1, 2)
    mean, count = np.asarray(mean, np.float64), np.asarray(count, np.float64)
    if not len(edges) == len(mean) == len(count):
        raise ValueError(f"{len(edges)} edges, {len(mean)} means and {len(count)} counts do not belong together")
    if len(edges) == 0:
        return np.zeros(0)
    ids, compact = np.unique(edges, return_inverse=True)
    compact = np.sort(compact.reshape(-1, 2), axis=1)
    order = np.lexsort((compact[:, 1], compact[:, 0]))  # ties are broken by ids, not by the order of arrival
    sorted_edges = compact[order]
    _check_edges(sorted_edges)
    import higra  # brings matplotlib along, which workers need not wait for

    graph, bridges = _connected_graph(len(ids), sorted_edges)
    scores = np.concatenate([1 - mean[order], np.full(bridges, _BEYOND_EVERY_SCORE)])
    weights = np.concatenate([count[order], np.ones(bridges)])
    tree, altitudes = higra.binary_partition_tree_average_linkage(graph, scores, weights)
    joined_at = higra.saliency(tree, altitudes, graph)[: len(edges)]
    result = np.empty(len(edges))
    result[order] = np.round(joined_at, SCORE_DECIMALS)
    return result


def _check_edges(sorted_edges: np.ndarray) -> None:
    if (sorted_edges[:, 0] == sorted_edges[:, 1]).any():
        raise ValueError("an edge joins a fragment with itself")
    if (np.diff(sorted_edges, axis=0) == 0).all(axis=1).any():
        raise ValueError("an edge occurs twice; sum the statistics first")


def _connected_graph(size: int, edges: np.ndarray) -> tuple[higra.UndirectedGraph, int]:
    """The graph of the edges, followed by as many bridges as connect its components in a chain."""
    import higra

    everything = connected_components(np.arange(size), edges, np.zeros(len(edges)), 0)
    roots = np.unique(everything[:, 1]).astype(np.int64)
    graph = higra.UndirectedGraph(size)
    graph.add_edges(edges[:, 0], edges[:, 1])
    graph.add_edges(roots[:-1], roots[1:])
    return graph, len(roots) - 1
