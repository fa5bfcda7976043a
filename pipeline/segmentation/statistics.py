"""What the graph knows about each fragment: size, centre, bounding box."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
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
    fragments = np.ascontiguousarray(fragments, np.uint64)
    ids = _candidates(fragments)
    if len(ids) == 0:
        vectors = np.zeros((0, 3), np.int64)
        return FragmentStatistics(ids, np.zeros(0, np.int64), np.zeros((0, 3)), vectors, vectors.copy())
    found = cc3d.statistics(relabel(fragments, ids, np.arange(1, len(ids) + 1, dtype=np.uint32)))
    present = np.flatnonzero(found["voxel_counts"][1:]) + 1
    boxes = [found["bounding_boxes"][number] for number in present]
    return FragmentStatistics(
        id=ids[present - 1],
        size=found["voxel_counts"][present].astype(np.int64),
        centre=found["centroids"][present].astype(np.float64),
        begin=np.array([[axis.start for axis in box] for box in boxes], np.int64),
        end=np.array([[axis.stop for axis in box] for box in boxes], np.int64),
    )


def _candidates(fragments: np.ndarray) -> np.ndarray:
    """Sorted ids among which are all fragments: without gaps if they are dense enough, as those of a block are."""
    last = int(fragments.max(initial=0))
    if last == 0:
        return np.zeros(0, np.uint64)
    first = int((fragments - np.uint64(1)).min()) + 1  # 0 becomes the largest number
    if last - first < fragments.size:
        return np.arange(first, last + 1, dtype=np.uint64)
    ids = np.unique(fragments)
    return ids[ids > 0]
