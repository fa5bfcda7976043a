"""Surfaces of segments from a coarse level of a segmentation, for pictures: smooth, and as small as the level."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from .rendering import Surface

SMOOTHING = 0.8
"""Standard deviation in voxels of the Gaussian that takes the stairs off a body."""
LEVEL = 0.42
"""Of a smoothed body; below one half, so that what is a voxel thin stays."""
GOLDEN_ANGLE = 0.381966


def surface_of(mask: np.ndarray, voxel_size: Sequence[float], begin: Sequence[float], colour: np.ndarray) -> Surface:
    """The surface of a body, closed where the array ends.

    Args:
        mask: (z, y, x) bool.
        voxel_size: nanometres.
        begin: position of the array's first voxel in nanometres.
        colour: (3,) RGB.
    """
    from skimage.measure import marching_cubes  # slow to import

    margin, occupied = 3, _bounds(mask)
    begin = [start + part.start * size for start, part, size in zip(begin, occupied, voxel_size, strict=True)]
    field = gaussian_filter(np.pad(mask[occupied], margin).astype(np.float32), SMOOTHING)
    if field.max(initial=0) <= LEVEL:
        return Surface(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3), np.int64), colour)
    vertices, faces, _, _ = marching_cubes(field, LEVEL, allow_degenerate=False)
    size = np.asarray(voxel_size, float)
    slope = np.stack(
        [map_coordinates(g, vertices.T, order=1) for g in np.gradient(gaussian_filter(field, SMOOTHING))], axis=1
    )
    outwards = -slope / size
    outwards /= np.maximum(np.linalg.norm(outwards, axis=1, keepdims=True), 1e-9)
    position = np.asarray(begin, float) + (vertices - margin + 0.5) * size
    return Surface(position, outwards, faces, colour)


def _bounds(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds all of a body."""
    spans = []
    for axis in range(mask.ndim):
        there = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        spans.append(slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 0))
    return tuple(spans)


def rank_colours(count: int) -> np.ndarray:
    """(count, 3) RGB, as far apart as so many can be; the first ones most."""
    hues = (0.58 + GOLDEN_ANGLE * np.arange(count)) % 1
    return np.array(
        [colorsys.hls_to_rgb(hue, 0.58 + 0.09 * (rank % 3 - 1), 0.62) for rank, hue in enumerate(hues)]
    ).reshape(-1, 3)
