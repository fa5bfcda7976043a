"""Volumes of any voxel size and place, read on the voxels of another one: each takes the value of the nearest voxel.

What is nearest is decided in fractions, from positions in nanometres, so that it is the same for every voxel whatever
box it is read with. Of two that are equally near it is the one with the larger index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from funlib.geometry import Coordinate

from .aligned import WHOLE
from .boxes import Box
from .volume import Volume


@dataclass(frozen=True)
class NearestVoxels:
    """A volume on the voxels of another one, raw.

    Attributes:
        volume: any; (z, y, x).
        begin: position of its first corner in raw's voxels, along z, y, x.
        size: raw's voxels per voxel, along z, y, x.
        outside: what voxels of raw read as that it does not cover; None if the nearest voxel counts there, too.
    """

    volume: Volume
    begin: tuple[Fraction, ...]
    size: tuple[Fraction, ...]
    outside: int | None = None

    @staticmethod
    def placed(
        volume: Volume,
        raw: Volume,
        voxel_size: Sequence[float],
        offset: Sequence[float],
        centred: bool = False,
        outside: int | None = None,
    ) -> NearestVoxels:
        """A volume where positions in nanometres say that it lies.

        Args:
            volume: any.
            raw: in its place.
            voxel_size, offset: of the volume, nanometres, order z, y, x.
            centred: the offset is that of the first voxel's centre.
            outside: see the attribute.
        """
        sizes = zip(voxel_size, raw.voxel_size, strict=True)
        ratios = [_whole_factor(_exact(own) / _exact(of_raw)) for own, of_raw in sizes]
        plain = [
            (_exact(own) - _exact(of_raw)) / _exact(size)
            for own, of_raw, size in zip(offset, raw.offset, raw.voxel_size, strict=True)
        ]
        begin = plain
        if centred and raw.placement.centred:  # both name the middle of their first voxel
            begin = [position - (ratio - 1) / 2 for position, ratio in zip(plain, ratios, strict=True)]
            if not all(map(_is_whole, begin)) and all(map(_is_whole, plain)):
                begin = plain  # many writers mean the corner although their format says the middle
        return NearestVoxels(volume, tuple(map(_whole_position, begin)), tuple(ratios), outside)

    @property
    def end(self) -> tuple[Fraction, ...]:
        """Position of its last corner in raw's voxels."""
        extents = zip(self.begin, self.size, self.volume.shape, strict=True)
        return tuple(begin + size * extent for begin, size, extent in extents)

    def covers(self, box: Box) -> bool:
        """Whether every voxel of a box of raw's lies in the volume, or less than one of its voxels beside it."""
        return all(
            begin - size < first + Fraction(1, 2) and last - Fraction(1, 2) < end + size
            for begin, end, size, first, last in zip(self.begin, self.end, self.size, box.begin, box.end, strict=True)
        )

    def touches(self, box: Box) -> bool:
        """Whether the middle of some voxel of a box of raw's lies in the volume."""
        return all(((index >= 0) & (index < extent)).any() for index, extent in self._by_axis(box))

    def read(self, box: Box) -> np.ndarray:
        """The values of a box of raw's voxels, (z, y, x)."""
        inside, indices = [], []
        for index, extent in self._by_axis(box):
            inside.append((index >= 0) & (index < extent))
            indices.append(np.clip(index, 0, extent - 1))
        first = Coordinate(int(index.min()) for index in indices)
        last = Coordinate(int(index.max()) + 1 for index in indices)
        stored = self.volume.read(Box(first, last))
        values: np.ndarray = stored[np.ix_(*(index - begin for index, begin in zip(indices, first, strict=True)))]
        if self.outside is None or all(part.all() for part in inside):
            return values
        covered = inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]
        return np.where(covered, values.astype(np.int64 if values.dtype.kind == "i" else np.uint64), self.outside)

    def _by_axis(self, box: Box) -> list[tuple[np.ndarray, int]]:
        """For each axis the nearest voxel of each of raw's, (N,) int64, also beyond the volume; and its extent."""
        found = []
        for axis, (first, end) in enumerate(zip(box.begin, box.end, strict=True)):
            twice = 2 * self.begin[axis]  # the middle of raw's voxel p is p + 1/2
            half = 1 / (2 * self.size[axis])
            over, under = half.numerator, half.denominator * twice.denominator
            shift, scale = twice.numerator, twice.denominator
            index = [((2 * place + 1) * scale - shift) * over // under for place in range(first, end)]
            found.append((np.array(index, np.int64), int(self.volume.shape[axis])))
        return found


def _exact(value: float) -> Fraction:
    """A number as its decimal text says it."""
    return Fraction(repr(float(value)))


def _is_whole(value: Fraction) -> bool:
    return abs(value - round(value)) <= WHOLE


def _whole_position(value: Fraction) -> Fraction:
    """The whole number that a position is up to rounding, if it is one."""
    return Fraction(round(value)) if _is_whole(value) else value


def _whole_factor(value: Fraction) -> Fraction:
    """The same of a ratio of voxel sizes, as labels may be coarser by."""
    nearest = max(1, round(value))
    return Fraction(nearest) if abs(value - nearest) <= WHOLE * value else value
