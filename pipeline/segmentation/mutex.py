"""Fragments by mutex watershed: attraction from short offsets, repulsion from long ones, strongest first, no seeds."""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import mwatershed
import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from .affinities import as_unit_interval
from .components import relabel

_SHORT_BIAS, _LONG_BIAS = -0.2, -0.7


def mutex_fragments(
    affinities: np.ndarray,
    offsets: Sequence[Sequence[int]],
    background: np.ndarray | None = None,
    *,
    attraction_bias: float = _SHORT_BIAS,
    repulsion_bias: float = _LONG_BIAS,
    minimum_size: int = 0,
) -> np.ndarray:
    """Fragments of a block by mutex watershed, with a background and without specks.

    Args:
        affinities, offsets: as for `mutex_watershed`.
        background: (z, y, x) bool, voxels that belong to no fragment. Default: none.
        attraction_bias: bias of the nearest neighbours.
        repulsion_bias: bias of longer offsets.
        minimum_size: connected pieces with fewer voxels are given to the fragments beside them; those that touch none
            become 0.

    Returns:
        (z, y, x) uint64 ids; 0 is background.

    Raises:
        ValueError: as for `mutex_watershed`.
    """
    biases = [attraction_bias if sum(map(abs, offset)) == 1 else repulsion_bias for offset in offsets]
    fragments = mutex_watershed(affinities, offsets, biases=biases)
    if background is not None:
        fragments[background] = 0
    if minimum_size > 0:
        fragments = _without_specks(fragments, minimum_size, in_plane=not any(offset[0] for offset in offsets))
    return fragments


def _without_specks(fragments: np.ndarray, minimum_size: int, in_plane: bool) -> np.ndarray:
    """Give small connected pieces to the larger ones beside them, in the section or in all directions."""
    pieces = cc3d.connected_components(np.ascontiguousarray(fragments), connectivity=6).astype(np.int64)
    large = np.bincount(pieces.ravel()) >= minimum_size
    faces = ndimage.generate_binary_structure(3, 1)
    if in_plane:
        faces[[0, 2]] = False
    flat = np.zeros(pieces.shape, np.uint8)
    kept = np.where(large[pieces], pieces, 0)
    return watershed(flat, kept, connectivity=faces, mask=pieces > 0).astype(np.uint64)


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
