"""Positions in the world: nanometres, fractions allowed, order z, y, x."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Nanometres = tuple[float, float, float]
"""A position or an extent."""


def three_numbers(values: Iterable[float]) -> Nanometres:
    """A vector as a tuple of Python's own numbers."""
    z, y, x = (float(value) for value in values)
    return z, y, x


def position_of(voxel: Sequence[float], voxel_size: Sequence[float], offset: Sequence[float]) -> Nanometres:
    """The position of a voxel's first corner in nanometres.

    Args:
        voxel: counted from the first voxel of the volume, order z, y, x; fractions are within a voxel.
        voxel_size, offset: of the volume.
    """
    return three_numbers(o + v * s for o, v, s in zip(offset, voxel, voxel_size, strict=True))
