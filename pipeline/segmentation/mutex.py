"""Fragments by mutex watershed: attraction from short offsets, repulsion from long ones, strongest first, no seeds."""

from __future__ import annotations

from collections.abc import Sequence

import mwatershed
import numpy as np

from .affinities import as_unit_interval
from .components import relabel

_SHORT_BIAS, _LONG_BIAS = -0.2, -0.7


def mutex_watershed(
    affinities: np.ndarray,
    offsets: Sequence[Sequence[int]],
    *,
    biases: Sequence[float] | None = None,
    strides: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """Fragments of a block by mutex watershed.

    Args:
        affinities: (k, z, y, x), float in [0, 1] or uint8 (255 = certain).
        offsets: one per channel in voxels, order z, y, x. Long ones are what keeps neurites apart.
        biases: one per channel, added to the affinities: above zero attracts, below repels. Default: -0.2 for nearest
            neighbours, -0.7 for longer offsets.
        strides: one per channel; use only every n-th voxel along each axis of that channel. Default: all.

    Returns:
        (z, y, x) uint64 with ids 1..n, numbered in the order of their first voxels. Every voxel belongs to a fragment.

    Raises:
        ValueError: affinities, offsets and biases differ in number.
    """
    values = as_unit_interval(affinities)
    if biases is None:
        biases = [_SHORT_BIAS if sum(map(abs, offset)) == 1 else _LONG_BIAS for offset in offsets]
    if not len(values) == len(offsets) == len(biases):
        raise ValueError(
            f"{len(values)} channels, {len(offsets)} offsets and {len(biases)} biases do not belong together"
        )
    if values[0].size == 0:
        return np.zeros(values.shape[1:], np.uint64)
    biased = values.astype(np.float64) + np.asarray(biases, np.float64).reshape(-1, 1, 1, 1)
    segmentation = mwatershed.agglom(
        biased, [list(offset) for offset in offsets], strides=[list(s) for s in strides] if strides else None
    )
    ids, first = np.unique(segmentation, return_index=True)
    rank = np.empty(len(ids), np.uint64)
    rank[np.argsort(first)] = np.arange(1, len(ids) + 1)
    return _renumber(segmentation, ids, rank)


def _renumber(segmentation: np.ndarray, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Replace ids, 0 included."""
    return relabel(segmentation.astype(np.uint64) + np.uint64(1), ids.astype(np.uint64) + np.uint64(1), values)
