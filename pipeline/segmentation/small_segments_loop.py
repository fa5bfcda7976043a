"""Joining of small segments as a loop over edges, compiled; `small_segments.py` prepares its arrays."""

from __future__ import annotations

import numpy as np

from .compiled import compiled
from .union_find import root_of


@compiled
def join_small(segment: np.ndarray, sizes: np.ndarray, pairs: np.ndarray, below: int) -> np.ndarray:
    """Which of some edges join, one after another.

    Args:
        segment: (N,) int64, the node that holds the segment of each node; itself where it holds its own. Changes.
        sizes: (N,) int64, voxels of the segment that a node holds. Changes.
        pairs: (E, 2) int64, nodes.
        below: voxels; a segment with fewer is joined.
    """
    joins = np.zeros(len(pairs), np.bool_)
    for edge in range(len(pairs)):
        one, other = root_of(segment, pairs[edge, 0]), root_of(segment, pairs[edge, 1])
        if one != other and (sizes[one] < below or sizes[other] < below):
            one, other = min(one, other), max(one, other)
            segment[other] = one
            sizes[one] += sizes[other]
            joins[edge] = True
    return joins
