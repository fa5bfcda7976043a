"""From affinities to fragments: the choice of a method, and the background that enters no fragment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .affinities import as_unit_interval
from .mutex import mutex_fragments
from .watershed import seeded_watershed


def make_fragments(
    affinities: np.ndarray,
    offsets: Sequence[Sequence[int]],
    *,
    method: str = "watershed",
    background_threshold: float = 0.0,
    voxel_size: Sequence[float] | None = None,
    **settings: Any,
) -> np.ndarray:
    """Fragments of a block.

    Without an offset along z, the sections are separate images: no fragment has voxels of two of them.

    Args:
        affinities: (k, z, y, x), float in [0, 1] or uint8 (255 = certain).
        offsets: one per channel in voxels, order z, y, x; first those of the nearest neighbours, along y and x, or z,
            y and x.
        method: `watershed` or `mutex_watershed`.
        background_threshold: voxels that their neighbours hold less than this (see `hold`) are background.
        voxel_size: extent of a voxel along z, y, x; only the ratios matter.
        settings: further arguments of `seeded_watershed`, or of `mutex_fragments`.

    Returns:
        (z, y, x) uint64; 0 is no fragment.

    Raises:
        ValueError: the affinities do not fit the offsets.
    """
    images = not any(offset[0] for offset in offsets)
    nearest = affinities[: 2 if images else 3]
    background = mean_affinity_to_neighbours(nearest) < background_threshold if background_threshold > 0 else None
    if method == "mutex_watershed":
        return mutex_fragments(affinities, offsets, background, **settings)
    if images:
        settings["in_plane"] = True
    fragments = seeded_watershed(nearest, voxel_size=voxel_size, **settings)
    return fragments if background is None else np.where(background, np.uint64(0), fragments)


def mean_affinity_to_neighbours(nearest: np.ndarray) -> np.ndarray:
    """How strongly its neighbours hold each voxel: the mean of its affinities to both neighbours along each axis.

    Args:
        nearest: (2 or 3, z, y, x) affinities to the neighbours on the low side, along the last axes.

    Returns:
        (z, y, x) float32 in [0, 1]. At an end of the array the one neighbour counts twice.
    """
    values = as_unit_interval(nearest)
    total = np.zeros(values.shape[1:], np.float32)
    for channel, axis in zip(values, range(3 - len(values), 3), strict=True):
        high = np.concatenate([channel.take(range(1, channel.shape[axis]), axis), channel.take([-1], axis)], axis)
        low = np.concatenate([high.take([0], axis), channel.take(range(1, channel.shape[axis]), axis)], axis)
        total += (low + high) / 2
    return total / len(values)
