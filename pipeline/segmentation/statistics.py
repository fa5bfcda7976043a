"""What the graph knows about each fragment: size, centre, bounding box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .components import relabel


@dataclass(frozen=True)
class FragmentStatistics:
    """One row per fragment, sorted by id.

    Attributes:
        id: (N,) uint64.
        size: (N,) int64, voxels.
        centre: (N, 3) float64, mean of the voxels' indices, order z, y, x; half a voxel less than their mean position.
        begin: (N, 3) int64, first voxel of the bounding box.
        end: (N, 3) int64, one past its last voxel.
    """

    id: np.ndarray
    size: np.ndarray
    centre: np.ndarray
    begin: np.ndarray
    end: np.ndarray


def fragment_statistics(fragments: np.ndarray) -> FragmentStatistics:
    """Size, centre and bounding box of every fragment.

    Args:
        fragments: (z, y, x), ids; 0 is no fragment.
    """
    from .fragment_sums import sum_fragments  # compiled: whoever asks for none need not load a compiler

    fragments = np.ascontiguousarray(fragments, np.uint64)
    first, ids = _candidates(fragments)
    if first is None:
        fragments, first = relabel(fragments, ids, np.arange(1, len(ids) + 1, dtype=np.uint64)), 1
    size, index_sum, begin, end = sum_fragments(fragments, np.uint64(first), len(ids))
    found = size > 0
    return FragmentStatistics(ids[found], size[found], index_sum[found] / size[found, None], begin[found], end[found])


def _candidates(fragments: np.ndarray) -> tuple[int | None, np.ndarray]:
    """Sorted ids among which are all fragments; without gaps if they are dense enough, as those of a block are, and
    then the first of them besides.
    """
    last = int(fragments.max(initial=0))
    if last == 0:
        return 1, np.zeros(0, np.uint64)
    first = int((fragments - np.uint64(1)).min()) + 1  # 0 becomes the largest number
    if last - first < fragments.size:
        return first, np.arange(first, last + 1, dtype=np.uint64)
    ids = np.unique(fragments)
    return None, ids[ids > 0]
