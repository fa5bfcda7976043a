"""Positions in the world: nanometres, fractions allowed, order z, y, x."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import UserError

Nanometres = tuple[float, float, float]
"""A position or an extent."""
FARTHEST = 1e15
"""A thousand kilometres."""


def three_numbers(values: Iterable[float]) -> Nanometres:
    """A vector as a tuple of Python's own numbers.

    Raises:
        UserError: a number is none, or farther away than anything that is imaged.
    """
    z, y, x = (float(value) for value in values)
    if not all(abs(value) < FARTHEST for value in (z, y, x)):
        raise UserError(f"({z:g}, {y:g}, {x:g}) nanometres are no place or extent of a volume")
    return z, y, x


def position_of(voxel: Sequence[float], voxel_size: Sequence[float], offset: Sequence[float]) -> Nanometres:
    """The position of a voxel's first corner in nanometres.

    Args:
        voxel: counted from the first voxel of the volume, order z, y, x; fractions are within a voxel.
        voxel_size, offset: of the volume.
    """
    return three_numbers(o + v * s for o, v, s in zip(offset, voxel, voxel_size, strict=True))
