"""Exact average linkage region by region: the same score for every edge as on the whole graph, whatever the regions.

Two clusters that are each other's nearest may be merged at once: nothing that is merged elsewhere can bring either
nearer to a third (average linkage is reducible; `linkage_loop.py` says why that holds to the last bit). So a region
merges what it can be sure of:

1. A region knows all edges of its clusters, also those across its border, but nothing else of the clusters beyond:
   these are *open*, and not merged. What is merged beyond the border comes no nearer than its nearest part was.
2. Edges are looked at in the order of their scores. Two clusters that are not open are merged, and their edges to a
   third become one. Whose nearest cluster is open is open, too.
3. What is left, edges between open clusters and edges that leave the region, goes up to a larger region, in which less
   is open. A region without an outside leaves nothing.

An edge across a border *belongs* to the region of its larger fragment, and the other one sees it: it knows the edge
between the two fragments and keeps it until both ends are inside. There the owner's edge, which calls the cluster on
the other side by that fragment, gets the name of the cluster.

Every edge that goes in is merged in the region, or is part of one that goes up; so scores come down the same way.
Clusters that are not open and have no edge below the highest score of interest are merged with nobody any more: their
edges need not go up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .cluster_edges import UNIT, ClusterEdges
from .linkage import SCORE_DECIMALS, scores_of_means

NEVER = 1.0
"""The score of edges that were not merged up to the highest score of interest."""


@dataclass(frozen=True)
class LinkedRegion:
    """What became of the edges of a region.

    Attributes:
        edges: those that go up; of edges that leave the region, `u` is a fragment beyond the border.
        seen: edges across the border that belong to others, with what the clusters are called now.
        target: (E,) int64, for each edge that went in the row in `edges` that it is part of; -1 if it has a score.
        score: (E,) float64, the score of each edge that went in and goes up no more; NaN of the others.
    """

    edges: ClusterEdges
    seen: ClusterEdges
    target: np.ndarray
    score: np.ndarray

    def scores(self, above: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
        """(E,) float64, the scores of all edges that went in, or of some, from those of `edges`."""
        target, result = self.target[rows], np.array(self.score[rows])
        result[target >= 0] = above[target[target >= 0]]
        return result


def across_inner_borders(
    edges: ClusterEdges, seen: ClusterEdges, is_inside: np.ndarray
) -> tuple[ClusterEdges, ClusterEdges]:
    """The edges of a region made of smaller ones, and what it sees.

    Args:
        edges: that its parts have left.
        seen: by its parts.
        is_inside: (S,) bool, seen edges of which both ends are inside now.

    Returns:
        The edges, with clusters on both sides of borders that are no more; and what is still seen across a border.
    """
    known = seen.select(is_inside)
    fragments, first = np.unique(known.first_u, return_index=True)
    place = np.minimum(np.searchsorted(fragments, edges.u), max(len(fragments) - 1, 0))
    u = edges.u.copy()
    if len(fragments):
        met = fragments[place] == edges.u
        u[met] = known.u[first][place[met]]
    return ClusterEdges(u, *edges.columns()[1:]), seen.select(~is_inside)


def link_region(
    edges: ClusterEdges, leaves: np.ndarray, seen: ClusterEdges, maximum_score: float = 1.0
) -> LinkedRegion:
    """Merge in a region what the rest of the graph cannot change.

    Args:
        edges: those that belong to the region.
        leaves: (E,) bool, edges that leave the region, with `u` outside.
        seen: edges (of fragments, that is `first_u` and `first_v`) that leave the region and belong to others, with `u`
            inside.
        maximum_score: clusters with nothing nearer than this are done with. Edges that are not merged up to it get
            the score `NEVER`, unless it is 1.

    Raises:
        OverflowError: a cluster has more contacts with another than can be counted (2**37).
    """
    every = ClusterEdges.concatenate([edges, seen])
    ids, ends = np.unique(np.stack([every.u, every.v], axis=1), return_inverse=True)
    ends = ends.reshape(-1, 2).astype(np.int32)
    is_open = np.zeros(len(ids), bool)
    is_open[ends[: len(edges)][leaves, 0]] = True
    is_open[ends[len(edges) :, 1]] = True
    pair, rows, sums, counts = _pairs(every, ends)
    from .linkage_loop import merge_nearest  # compiled: whoever links nothing need not load a compiler

    lowest = 1 - maximum_score - 10.0**-SCORE_DECIMALS if maximum_score < 1 else -1.0
    between = ends[rows]
    into, merged_mean, cluster, fits = merge_nearest(between.ravel(), sums, counts, UNIT, is_open, lowest)
    if not fits:
        raise OverflowError("two clusters have more contacts with each other than can be counted (2**37)")
    unmerged = (into == np.arange(len(into))) & np.isnan(merged_mean)
    became, names = into[pair], ids[cluster]
    own = became[: len(edges)]
    goes_up = is_open[between].all(axis=1)
    goes_up[became[len(edges) :]] = True  # if others have a part of it, it would be missing from the mean
    goes_up &= unmerged
    scores = np.where(goes_up, np.nan, np.where(unmerged, NEVER, scores_of_means(merged_mean)))
    left = np.flatnonzero(goes_up[own])
    target = np.full(len(edges), -1, np.int64)
    _, target[left] = np.unique(own[left], return_inverse=True)
    first, left_sums, left_counts = _united(edges.select(left), target[left])
    first = left[first]
    u, v = names[ends[first]].T
    up = ClusterEdges(u, v, edges.first_u[first], edges.first_v[first], left_sums, left_counts)
    called = ClusterEdges(names[ends[len(edges) :, 0]], *seen.columns()[1:])
    return LinkedRegion(up, called, target, scores[own])


def _pairs(edges: ClusterEdges, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of clusters, in the order in which those of equal scores are merged.

    Args:
        edges: between them; a pair may have several.
        ends: (E, 2) int32, their clusters, by number.

    Returns:
        pair (E,) of each edge; row (P,) in `edges` of the one that was first; sums and counts (P,) of all.
    """
    low, high = ends.min(axis=1).astype(np.int64), ends.max(axis=1)
    _, pair = np.unique((low << 32) | high, return_inverse=True)
    rows, sums, counts = _united(edges, pair)
    order = np.lexsort((edges.first_v[rows], edges.first_u[rows]))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[pair], rows[order], sums[order], counts[order]


def _united(edges: ClusterEdges, group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups 0, 1, … of edges as one each: the row (G,) of the one that is first, and sums and counts (G,) of all."""
    order = np.lexsort((edges.first_v, edges.first_u, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    if not len(starts):
        return order, edges.sums, edges.counts
    return order[starts], np.add.reduceat(edges.sums[order], starts), np.add.reduceat(edges.counts[order], starts)
