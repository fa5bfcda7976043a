"""A more lenient threshold for small segments: a small one joins its best neighbour where two large ones would not.

Edges are taken in the order of their merge scores; of equal ones the edge with the higher mean affinity comes first,
then the one with the smaller ids. An edge joins the two segments that it lies between if its score is up to the
threshold, or if one of the two has fewer than so many voxels by then and the score is up to the lenient threshold.

That depends on the scored graph alone. Whatever is joined makes segments larger, and a segment that is small was joined
by nothing that another threshold or size would not have joined, too. So a higher threshold, lenient threshold or size
gives segments that are unions of those of a lower one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SmallSegments:
    """Which segments are small, and how far they are joined.

    Attributes:
        below: voxels; a segment with fewer is small.
        threshold: largest merge score that joins a small segment.
        ids: (N,) fragments, sorted.
        sizes: (N,) int64, their voxels.
        affinities: (E,) mean affinity of each edge, in the order of the edges that this is used with.
    """

    below: int
    threshold: float
    ids: np.ndarray
    sizes: np.ndarray
    affinities: np.ndarray

    @staticmethod
    def of(
        limits: tuple[int, float] | None, ids: np.ndarray, sizes: np.ndarray, affinities: np.ndarray
    ) -> SmallSegments | None:
        """From the limits `below` and `threshold`; None without any. The other arguments are the attributes."""
        return None if limits is None else SmallSegments(*limits, ids, sizes, affinities)

    def select(self, rows: np.ndarray) -> SmallSegments:
        """The same for the edges of an index or mask."""
        return SmallSegments(self.below, self.threshold, self.ids, self.sizes, self.affinities[rows])

    def sizes_of(self, ids: np.ndarray) -> np.ndarray:
        """(M,) int64, voxels of fragments; 0 of ids that are none."""
        if not len(self.ids):
            return np.zeros(len(ids), np.int64)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[place] == ids, self.sizes[place], 0)


def joining_edges(
    ids: np.ndarray, pairs: np.ndarray, scores: np.ndarray, threshold: float, small: SmallSegments | None
) -> np.ndarray:
    """Which edges join.

    Args:
        ids: (N,) fragments, sorted.
        pairs: (E, 2) places in `ids`.
        scores: (E,) merge scores; NaN never joins.
        threshold: largest score that joins.
        small: what more joins small segments; None for nothing.

    Returns:
        (E,) bool; of the edges beyond the threshold only those that brought two segments together.
    """
    scores = np.asarray(scores)
    joins = scores <= threshold
    if small is None or small.threshold <= threshold:
        return joins
    from .small_segments_loop import join_small  # compiled: whoever joins nothing small need not load a compiler

    doubtful = np.flatnonzero(~joins & (scores <= small.threshold))
    first, second = pairs[doubtful].min(axis=1), pairs[doubtful].max(axis=1)
    order = np.lexsort((second, first, -small.affinities[doubtful], scores[doubtful]))
    doubtful = doubtful[order]
    segment, sizes = _segments(len(ids), pairs[joins], small.sizes_of(ids))
    joins[doubtful[join_small(segment, sizes, pairs[doubtful].astype(np.int64), small.below)]] = True
    return joins


def _segments(number: int, pairs: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The place of each fragment's segment (N,) int64 among the fragments, and the voxels of the segment there."""
    from scipy.sparse import coo_matrix  # slow to import, and workers need none of it
    from scipy.sparse.csgraph import connected_components as label_components

    matrix = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(number, number))
    count, component = label_components(matrix, directed=False) if number else (0, np.zeros(0, np.int64))
    first = np.full(count, number, np.int64)
    np.minimum.at(first, component, np.arange(number))
    voxels, segment = np.zeros(number, np.int64), first[component]
    np.add.at(voxels, segment, sizes)
    return segment, voxels
