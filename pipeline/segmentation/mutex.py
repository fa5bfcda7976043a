"""Fragments by mutex watershed: attraction from short offsets, repulsion from long ones, strongest first, no seeds.

    every voxel is a fragment
    for every edge (p, p + offset), by falling |affinity + bias|:
        next edge if both voxels are in one fragment
        if affinity + bias > 0: merge the two fragments, unless they repel each other; what repels one repels both
        else: from now on the two fragments repel each other

mwatershed does that. On a background, it runs on every connected part of the foreground by itself, since sorting the
edges takes most of the time; pieces that are too small then go to those beside them.
"""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import mwatershed
import numpy as np

from ..offsets import pair_slices
from .affinities import as_unit_interval
from .components import relabel

_SHORT_BIAS, _LONG_BIAS = -0.2, -0.7
_LAST = -1e-9
"""An edge that does not matter: it repels after all others have had their say."""


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
    in_plane = not any(offset[0] for offset in offsets)
    if background is None:
        fragments = mutex_watershed(affinities, offsets, biases=biases)
    else:
        fragments = _on_islands(affinities, offsets, biases, _islands(~background, in_plane))
    if minimum_size > 0:
        fragments = _without_specks(fragments, minimum_size, in_plane)
    return fragments


def _islands(foreground: np.ndarray, in_plane: bool) -> np.ndarray:
    """The connected parts of a foreground, 1..n, within the sections or in all directions; (z, y, x) int64."""
    if not in_plane:
        return cc3d.connected_components(np.ascontiguousarray(foreground), connectivity=6).astype(np.int64)
    islands, count = np.zeros(foreground.shape, np.int64), 0
    for section, part in zip(foreground, islands, strict=True):
        found = cc3d.connected_components(np.ascontiguousarray(section), connectivity=4).astype(np.int64)
        part[:] = np.where(found > 0, found + count, 0)
        count += int(found.max(initial=0))
    return islands


def _on_islands(
    affinities: np.ndarray, offsets: Sequence[Sequence[int]], biases: Sequence[float], islands: np.ndarray
) -> np.ndarray:
    """Mutex watershed of every island by itself: the background neither attracts nor repels. (z, y, x) uint64."""
    from scipy import ndimage  # slow to import, and workers of most stages need none of it

    fragments = np.zeros(islands.shape, np.uint64)
    count = 0
    for number, box in enumerate(ndimage.find_objects(islands), start=1):
        inside = islands[box] == number
        values = _biased(affinities[(slice(None), *box)], biases)
        for channel, offset in zip(values, offsets, strict=True):
            channel[~(inside & _partners(inside, offset))] = _LAST
        found = _agglomerate(values, offsets)[inside]
        fragments[box][inside] = found + np.uint64(count)
        count += int(found.max())
    return fragments


def _partners(inside: np.ndarray, offset: Sequence[int]) -> np.ndarray:
    """Whether the partner of each voxel at an offset is inside; (z, y, x) bool."""
    partners = np.zeros_like(inside)
    here, there = pair_slices(offset, inside.shape)
    partners[here] = inside[there]
    return partners


def _without_specks(fragments: np.ndarray, minimum_size: int, in_plane: bool) -> np.ndarray:
    """Give small connected pieces to the larger ones beside them, in the section or in all directions."""
    from scipy import ndimage  # slow to import, rarely needed
    from skimage.segmentation import watershed

    pieces = cc3d.connected_components(np.ascontiguousarray(fragments), connectivity=6).astype(np.int64)
    large = np.bincount(pieces.ravel()) >= minimum_size
    faces = ndimage.generate_binary_structure(3, 1)
    if in_plane:
        faces[[0, 2]] = False
    flat = np.zeros(pieces.shape, np.uint8)
    kept = np.where(large[pieces], pieces, 0)
    result: np.ndarray = watershed(flat, kept, connectivity=faces, mask=pieces > 0).astype(np.uint64)
    return result


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
    if biases is None:
        biases = [_SHORT_BIAS if sum(map(abs, offset)) == 1 else _LONG_BIAS for offset in offsets]
    if not len(affinities) == len(offsets) == len(biases):
        raise ValueError(
            f"{len(affinities)} channels, {len(offsets)} offsets and {len(biases)} biases do not belong together"
        )
    if affinities[0].size == 0:
        return np.zeros(affinities.shape[1:], np.uint64)
    return _agglomerate(_biased(affinities, biases), offsets, strides)


def _biased(affinities: np.ndarray, biases: Sequence[float]) -> np.ndarray:
    """What attracts above zero and repels below, (k, z, y, x) float64."""
    return as_unit_interval(affinities).astype(np.float64) + np.asarray(biases, np.float64).reshape(-1, 1, 1, 1)


def _agglomerate(
    values: np.ndarray, offsets: Sequence[Sequence[int]], strides: Sequence[Sequence[int]] | None = None
) -> np.ndarray:
    """Ids 1..n of biased affinities, in the order of their first voxels, (z, y, x) uint64."""
    shape = values.shape[1:]
    fit = [k for k, offset in enumerate(offsets) if all(abs(o) < e for o, e in zip(offset, shape, strict=True))]
    if not fit:  # mwatershed does not survive offsets that are longer than the array
        return np.arange(1, values[0].size + 1, dtype=np.uint64).reshape(shape)
    segmentation = mwatershed.agglom(
        np.ascontiguousarray(values[fit]),
        [list(offsets[k]) for k in fit],
        strides=[list(strides[k]) for k in fit] if strides else None,
    )
    ids, first = np.unique(segmentation, return_index=True)
    rank = np.empty(len(ids), np.uint64)
    rank[np.argsort(first)] = np.arange(1, len(ids) + 1)
    return _renumber(segmentation, ids, rank)


def _renumber(segmentation: np.ndarray, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Replace ids by values, id 0 like any other."""
    return relabel(segmentation.astype(np.uint64) + np.uint64(1), ids.astype(np.uint64) + np.uint64(1), values)
