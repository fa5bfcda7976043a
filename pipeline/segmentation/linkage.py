"""Agglomeration on the whole graph: exact average linkage, independent of blocks.

Fragments are merged in the order of the mean affinity between them, which is averaged anew, weighted by contacts,
whenever two edges become one. The *merge score* of an edge is the score (1 - mean affinity) at which its two fragments
end up in one segment. Average linkage never goes back below a score it has passed, so the segments at threshold t are
the connected components of the edges with merge scores of at most t: one pass gives every threshold.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .cluster_edges import UNIT
from .components import connected_components, unique_ids
from .fragment_classes import FORBIDDEN, FragmentClasses

SCORE_DECIMALS = 6
"""Scores are rounded to so many decimals: a threshold of 0.4 includes an average of 0.4 whatever its last bit."""

_FINEST_UNIT, _ROOM = 52, 62
"""Bits after the point that affinities have at most, and bits that sums of them may have."""


def agglomerate_global(
    edges: np.ndarray,
    mean: np.ndarray,
    count: np.ndarray,
    thresholds: Iterable[float],
    nodes: np.ndarray | None = None,
    classes: FragmentClasses | None = None,
) -> dict[float, np.ndarray]:
    """Segments by exact average linkage, at several thresholds.

    Args:
        edges: (E, 2) fragment ids, in any order, each pair once.
        mean: (E,) float, mean affinity in [0, 1].
        count: (E,) whole numbers above 0, contacts: pairs of voxels.
        thresholds: largest scores (1 - affinity) that merge; larger merges more.
        nodes: ids of all fragments; those without an edge keep their own id. Default: the ids in `edges`.
        classes: of the fragments; those of different classes are never joined.

    Returns:
        For each threshold a LUT (N, 2) uint64 of fragment id and segment id, sorted by fragment id; a segment carries
        the smallest id of its fragments. Independent of the order and direction of the edges.

    Raises:
        ValueError: the arrays do not belong together, or hold what is no mean or no count.
    """
    scores = merge_scores(edges, mean, count, classes)
    ids = unique_ids(nodes, edges)
    return {threshold: connected_components(ids, edges, scores, threshold) for threshold in thresholds}


def merge_scores(
    edges: np.ndarray, mean: np.ndarray, count: np.ndarray, classes: FragmentClasses | None = None
) -> np.ndarray:
    """The score in [0, 1] at which the two fragments of each edge end up in one segment, under average linkage.

    Args:
        edges, mean, count, classes: as for `agglomerate_global`.

    Returns:
        (E,) float64, in the order of `edges`; `FORBIDDEN` for those that classes forbid.

    Raises:
        ValueError: the arrays differ in length, an edge occurs twice or joins a fragment with itself, a mean is not in
            [0, 1], or a count is no whole number above 0.
    """
    edges = np.asarray(edges, np.uint64).reshape(-1, 2)
    mean, count = np.asarray(mean, np.float64), np.asarray(count)
    if not len(edges) == len(mean) == len(count):
        raise ValueError(f"{len(edges)} edges, {len(mean)} means and {len(count)} counts do not belong together")
    if classes is not None:
        scores, allowed = np.full(len(edges), FORBIDDEN), ~classes.forbid(edges)
        scores[allowed] = merge_scores(edges[allowed], mean[allowed], count[allowed])
        return scores
    if len(edges) == 0:
        return np.zeros(0)
    if not ((mean >= 0) & (mean <= 1)).all():
        raise ValueError("a mean affinity is not in [0, 1]")
    counts = count.astype(np.int64)
    if (counts < 1).any() or not np.array_equal(counts, count):
        raise ValueError("a count of contacts is no whole number above 0")
    sums, unit = _whole_sums(mean, counts)
    return scores_of_means(_merged_means(edges, sums, counts, unit))


def scores_of_means(means: np.ndarray) -> np.ndarray:
    """Merge scores from the mean affinities at which edges were merged."""
    result: np.ndarray = np.round(1 - means, SCORE_DECIMALS)
    return result


def _whole_sums(mean: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, float]:
    """The sums of affinities as whole numbers of a unit, int64, and the unit: 2**-26 where the means are those of a
    region graph, whose sums are found again exactly; otherwise the finest that fits.
    """
    exact = np.rint(mean * counts / UNIT)
    if np.array_equal(exact * UNIT / counts, mean) and exact.sum() < 2.0**_ROOM:
        return exact.astype(np.int64), UNIT
    unit = 2.0 ** -min(_FINEST_UNIT, _ROOM - int(counts.sum()).bit_length())
    return np.rint(mean * counts / unit).astype(np.int64), unit


def _merged_means(edges: np.ndarray, sums: np.ndarray, counts: np.ndarray, unit: float) -> np.ndarray:
    """(E,) float64, the mean affinity at which the ends of each edge come together."""
    from .linkage_loop import merge_nearest  # compiled: whoever links nothing need not load a compiler

    ids, compact = np.unique(edges, return_inverse=True)
    compact = np.sort(compact.reshape(-1, 2), axis=1).astype(np.int32)
    order = np.lexsort((compact[:, 1], compact[:, 0]))  # ties are broken by ids, not by the order of arrival
    ends = compact[order]
    _check_edges(ends)
    nobody_waits = np.zeros(len(ids), bool)
    into, means, _, fits = merge_nearest(ends.ravel(), sums[order], counts[order], unit, nobody_waits, -1.0)
    assert fits, "the unit leaves room for the sum of all"
    result = np.empty(len(edges))
    result[order] = means[into]
    return result


def _check_edges(sorted_edges: np.ndarray) -> None:
    if (sorted_edges[:, 0] == sorted_edges[:, 1]).any():
        raise ValueError("an edge joins a fragment with itself")
    if (np.diff(sorted_edges, axis=0) == 0).all(axis=1).any():
        raise ValueError("an edge occurs twice; sum the statistics first")
