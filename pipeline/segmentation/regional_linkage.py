"""Exact average linkage region by region: the same score for every edge as on the whole graph, whatever the regions.

Two clusters that are each other's nearest may be merged at once: nothing that is merged elsewhere can bring either
nearer to a third (average linkage is reducible; `linkage_loop.py` says why that holds to the last bit). So a region
merges what it can be sure of:

1. Clusters with an edge that leaves the region are *open*: what lies beyond is not known, and they are not merged.
2. Edges are looked at in the order of their scores. Two clusters that are not open are merged, and their edges to a
   third become one. Whose nearest cluster is open is open, too.
3. What is left, edges between open clusters and edges that leave the region, goes up to a larger region, in which less
   is open. A region without an outside leaves nothing.

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
        edges: those that go up.
        target: (E,) int64, for each edge that went in the row in `edges` that it is part of; -1 if it has a score.
        score: (E,) float64, the score of each edge that went in and goes up no more; NaN of the others.
    """

    edges: ClusterEdges
    target: np.ndarray
    score: np.ndarray

    def scores(self, above: np.ndarray) -> np.ndarray:
        """(E,) float64, the scores of all edges that went in, from those of `edges`."""
        up = self.target >= 0
        result = self.score.copy()
        result[up] = above[self.target[up]]
        return result


def link_region(
    edges: ClusterEdges, leaves: np.ndarray, open_clusters: np.ndarray, maximum_score: float = 1.0
) -> LinkedRegion:
    """Merge in a region what the rest of the graph cannot change.

    Args:
        edges: all edges between clusters of the region, and any that leave it.
        leaves: (E,) bool, edges that leave the region, with one end outside.
        open_clusters: ids of clusters of the region that have further edges, which are not among these.
        maximum_score: clusters with nothing nearer than this are done with. Edges that are not merged up to it get
            the score `NEVER`, unless it is 1.

    Raises:
        OverflowError: a cluster has more contacts with another than can be counted (2**37).
    """
    inner = np.flatnonzero(~leaves)
    inner = inner[np.lexsort((edges.first_v[inner], edges.first_u[inner]))]  # equal scores are merged in this order
    inside = edges.select(inner)
    ids, ends = np.unique(np.stack([inside.u, inside.v], axis=1), return_inverse=True)
    ends = ends.reshape(-1, 2).astype(np.int32)
    outgoing = edges.select(leaves)
    is_open = np.isin(ids, np.concatenate([np.asarray(open_clusters, np.uint64), outgoing.u, outgoing.v]))
    from .linkage_loop import merge_nearest  # compiled: whoever links nothing need not load a compiler

    lowest = 1 - maximum_score - 10.0**-SCORE_DECIMALS if maximum_score < 1 else -1.0
    into, merged_mean, cluster, fits = merge_nearest(ends.ravel(), inside.sums, inside.counts, UNIT, is_open, lowest)
    if not fits:
        raise OverflowError("two clusters have more contacts with each other than can be counted (2**37)")
    unmerged = (into == np.arange(len(into))) & np.isnan(merged_mean)
    goes_up = unmerged & is_open[ends].all(axis=1)
    left = np.flatnonzero(goes_up)
    u, v = ids[cluster[ends[left]]].T
    remaining = ClusterEdges(u, v, *(column[left] for column in inside.columns()[2:]))

    row = np.full(len(into), -1, np.int64)
    row[left] = np.arange(len(left))
    score = np.where(unmerged, NEVER, scores_of_means(merged_mean))
    score[left] = np.nan
    target, scores = np.full(len(edges), -1, np.int64), np.full(len(edges), np.nan)
    target[inner], scores[inner] = row[into], score[into]
    target[leaves] = len(left) + np.arange(len(outgoing))
    return LinkedRegion(ClusterEdges.concatenate([remaining, outgoing]), target, scores)
