"""Pairs of voxels at a fixed offset: where in an array they are."""

from __future__ import annotations

from collections.abc import Sequence

Index = tuple[slice, ...]
"""An index into the spatial axes of an array."""


def pair_slices(offset: Sequence[int], shape: Sequence[int], owned: Index | None = None) -> tuple[Index, Index]:
    """Index of the voxels p whose partner p + offset lies inside an array, and index of these partners.

    Args:
        offset: in voxels, one number per axis.
        shape: of the array, in voxels.
        owned: only pairs whose voxel p lies in these slices. Default: all.

    Returns:
        Two indices that select arrays of one shape, which is empty where no pair fits.

    Raises:
        ValueError: offset, shape and slices have different numbers of axes.
    """
    if len(offset) != len(shape):
        raise ValueError(f"offset {tuple(offset)} does not fit an array of {len(shape)} axes")
    here, there = [], []
    for step, extent, part in zip(offset, shape, owned or (slice(None),) * len(shape), strict=True):
        step = max(-extent, min(extent, step))
        begin, end, _ = part.indices(extent)
        begin, end = max(begin, -step), min(end, extent - step)
        end = max(begin, end)
        here.append(slice(begin, end))
        there.append(slice(begin + step, end + step))
    return tuple(here), tuple(there)
