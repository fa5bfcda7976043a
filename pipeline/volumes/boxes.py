"""Boxes of voxels and arithmetic on them. Order z, y, x."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from funlib.geometry import Coordinate

SPATIAL_AXES = ("z", "y", "x")


@dataclass(frozen=True)
class Box:
    """A box of voxels: `begin` included, `end` excluded, order z, y, x."""

    begin: Coordinate
    end: Coordinate

    @staticmethod
    def of_shape(shape: Sequence[int]) -> Box:
        """The box from the first voxel to `shape`."""
        return Box(Coordinate((0,) * len(shape)), Coordinate(shape))

    @property
    def shape(self) -> Coordinate:
        """Extent in voxels."""
        return self.end - self.begin

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod([max(0, extent) for extent in self.shape]))

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as an index into an array's spatial axes."""
        return tuple(slice(b, e) for b, e in zip(self.begin, self.end, strict=True))

    def grow(self, low: Sequence[int], high: Sequence[int]) -> Box:
        """The box with `low` more voxels before and `high` more behind, per axis."""
        return Box(self.begin - Coordinate(low), self.end + Coordinate(high))

    def intersect(self, other: Box) -> Box:
        """The common part; its `size` is 0 if there is none."""
        begin = Coordinate(max(a, b) for a, b in zip(self.begin, other.begin, strict=True))
        end = Coordinate(min(a, b) for a, b in zip(self.end, other.end, strict=True))
        return Box(begin, Coordinate(max(b, e) for b, e in zip(begin, end, strict=True)))

    def relative_to(self, other: Box) -> Box:
        """The same voxels, counted from the first voxel of `other`."""
        return Box(self.begin - other.begin, self.end - other.begin)

    def downsampled(self, factors: Sequence[int]) -> Box:
        """The voxels of a level that this box takes part in, where `factors` voxels along each axis are one."""
        end = Coordinate(-(-e // f) for e, f in zip(self.end, factors, strict=True))
        return Box(self.begin // Coordinate(factors), end)

    def split(self, shape: Sequence[int]) -> Iterator[Box]:
        """Boxes of `shape` voxels that cover this one, in C order; those at its far faces may be smaller."""
        step = Coordinate(shape)
        for begin in itertools.product(*map(range, self.begin, self.end, step)):
            yield Box(Coordinate(begin), Coordinate(begin) + step).intersect(self)

    def contains(self, other: Box) -> bool:
        """Whether every voxel of `other` lies in this box."""
        return self.intersect(other) == other


ZERO = Coordinate(0, 0, 0)
"""The first voxel, and the context of what needs none."""


def cells_of(box: Box, size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Positions (z, y, x), in C order, of the cells of a regular grid from voxel 0 that share voxels with a box.

    Args:
        box: the box.
        size: of a cell, in voxels.
    """
    spans = zip(box.begin, box.end, size, strict=True)
    return itertools.product(*(range(b // s, -(-e // s)) if b < e else () for b, e, s in spans))


def crop(data: np.ndarray, box: Box) -> np.ndarray:
    """The voxels of a box of an array whose last axes are z, y, x; a view."""
    z, y, x = box.slices
    return data[..., z, y, x]


def mirror_indices(begin: int, end: int, extent: int) -> np.ndarray:
    """Indices begin..end-1 folded back into 0..extent-1 by mirroring at both ends, however far they reach."""
    if extent == 1:
        return np.zeros(end - begin, dtype=np.int64)
    period = 2 * (extent - 1)
    folded = np.arange(begin, end) % period
    return np.where(folded < extent, folded, period - folded)


def read_mirrored(read: Callable[[Box], np.ndarray], shape: Sequence[int], box: Box) -> np.ndarray:
    """The voxels of a box that may reach beyond a volume, mirrored at its faces (edge voxel not repeated).

    Args:
        read: reads a box inside; the last three axes are z, y, x.
        shape: of the volume in voxels.
        box: the voxels wanted.
    """
    indices = [mirror_indices(b, e, extent) for b, e, extent in zip(box.begin, box.end, shape, strict=True)]
    inside = Box(Coordinate(int(i.min()) for i in indices), Coordinate(int(i.max()) + 1 for i in indices))
    data = read(inside)
    for axis, (index, first) in enumerate(zip(indices, inside.begin, strict=True)):
        local = index - first
        if not np.array_equal(local, np.arange(data.shape[data.ndim - 3 + axis])):
            data = np.take(data, local, axis=data.ndim - 3 + axis)
    return data
