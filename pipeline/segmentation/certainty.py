"""How sure a segmentation is, without labels: what the doubtful joins would move.

Fragments of a region are joined one pair of groups after another, in the order of their merge scores. Each join is a
decision: below the threshold it is made, above it is not. One that is decided wrongly costs bits of VOI: with f(n) =
n log2 n and N voxels, groups of a and b voxels cost (f(a + b) - f(a) - f(b)) / N, whether they were joined wrongly or
kept apart wrongly (the costs that `evaluation.errors` ranks errors by). How likely that is, the score s tells: 1 - s is
the mean affinity between the two. What is kept apart is wrong with probability 1 - s; what was joined, at a score below
the threshold, with s², since the nearer to 0, the surer. The sum over all joins is the doubt, in bits. Other ways to
weigh joins, and how well they rank blocks of real data by their VOI: docs/METHODS.md.
"""

from __future__ import annotations

import numpy as np


def certainty_of(sizes: np.ndarray, edges: np.ndarray, scores: np.ndarray, threshold: float) -> float:
    """How sure the segmentation of a region is.

    Args:
        sizes: (N,) voxels of each fragment.
        edges: (E, 2) numbers of fragments, rows of `sizes`.
        scores: (E,) merge scores in [0, 1]; edges without one (NaN) or that are forbidden (above 1) join nothing.
        threshold: edges up to this score are merged.

    Returns:
        2 to the power of minus the doubt in bits: 1 where nothing is in doubt; 0 of a region without fragments.
    """
    if not len(sizes):
        return 0.0
    joined_at, one, other = joins(sizes, edges, scores)
    wrong = np.where(joined_at <= threshold, joined_at**2, 1 - joined_at)
    bits = (wrong * (_bits(one + other) - _bits(one) - _bits(other))).sum() / sizes.sum()
    return float(2.0**-bits)


def joins(sizes: np.ndarray, edges: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The joins that make one group of all fragments that hang together, in the order of their scores.

    Args:
        sizes, edges, scores: as of `certainty_of`.

    Returns:
        (J,) float64 each: the score of every join, and the voxels of the two groups that it joins.
    """
    group, size = list(range(len(sizes))), sizes.astype(np.float64).tolist()

    def root(number: int) -> int:
        while group[number] != number:
            group[number] = group[group[number]]
            number = group[number]
        return number

    found = []
    order = np.lexsort((edges[:, 1], edges[:, 0], scores))[: np.count_nonzero(scores <= 1)]
    for (u, v), score in zip(edges[order].tolist(), scores[order].tolist(), strict=True):
        one, other = root(u), root(v)
        if one != other:
            found.append((score, size[one], size[other]))
            group[other] = one
            size[one] += size[other]
    joined_at, ones, others = np.array(found, dtype=np.float64).reshape(-1, 3).T
    return joined_at, ones, others


def _bits(voxels: np.ndarray) -> np.ndarray:
    return np.asarray(voxels * np.log2(voxels))
