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
    ids = np.unique(fragments)
    ids = ids[ids != 0].astype(np.uint64)
    if len(ids) == 0:
        vectors = np.zeros((0, 3), np.int64)
        return FragmentStatistics(ids, np.zeros(0, np.int64), np.zeros((0, 3)), vectors, vectors.copy())
    compact = relabel(fragments.astype(np.uint64), ids, np.arange(1, len(ids) + 1, dtype=np.uint32))
    found = cc3d.statistics(np.ascontiguousarray(compact))
    boxes = found["bounding_boxes"][1:]
    return FragmentStatistics(
        id=ids,
        size=found["voxel_counts"][1:].astype(np.int64),
        centre=found["centroids"][1:].astype(np.float64),
        begin=np.array([[axis.start for axis in box] for box in boxes], np.int64),
        end=np.array([[axis.stop for axis in box] for box in boxes], np.int64),
    )
