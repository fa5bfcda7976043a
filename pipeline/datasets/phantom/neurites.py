"""Neurites as tubes that run along z and wander: which neurite is at a voxel, and how far is its membrane?

Each cell of a square lattice in the section plane owns one neurite, whose centre follows a smooth random path along z.
A section is divided into the power cells of the centres (Voronoi cells with individual sizes): convex, hence connected.
The plane is then bent by a smooth displacement that varies along z as well, which curves the membranes and moves
bundles together. Everything is measured in multiples of the neurite spacing, so that the proportions do not depend
on the voxel size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import hashing, noise

JITTER = 0.40
"""Largest displacement of a centre from its lattice cell's middle, per axis."""
WANDER = 0.45
"""Largest excursion of a single neurite, per axis."""
WANDER_PITCH = 3.0
"""Distance along z between the bends of a single neurite."""
BEND = 2.6
"""Largest common displacement of neighbouring neurites."""
BEND_PITCH = (4.0, 3.0, 3.0)
"""Distance between the bends of a bundle along z, y and x."""
RIPPLE = 0.42
"""Largest displacement that curves single membranes."""
RIPPLE_PITCH = (1.4, 0.5, 0.5)
"""Distance between the ripples of a membrane along z, y and x."""
CALIBRE = 0.30
"""Range of the power cells' weights, in squared spacings."""
CALIBRE_PITCH = 3.0
"""Distance along z between the varicosities of a neurite."""
MARGIN = 3
"""Lattice cells around a region whose neurites may own or border one of its voxels; see `Neurites.centres`."""
TILE = 0.55
"""Extent of the tiles in which the nearest neurites are searched."""

_JITTER_Y, _JITTER_X, _WANDER_Y, _WANDER_X, _CALIBRE, _SWELLING, _BEND_Y, _BEND_X, _RIPPLE_Y, _RIPPLE_X = range(10)


@dataclass(frozen=True)
class Centres:
    """The neurites near a region, section by section.

    Attributes:
        rows, columns: (n,) int64, lattice cell of each neurite.
        y, x: (z, n) float32, centre in nanometres.
        weight: (z, n) float32, weight of the power cell in squared nanometres.
    """

    rows: np.ndarray
    columns: np.ndarray
    y: np.ndarray
    x: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Cells:
    """The nearest neurite of each voxel.

    Attributes:
        centres: the neurites near the region.
        nearest: (z, y, x) int32, index into `centres`.
        distance_to_centre: (z, y, x) float32, squared nanometres from the neurite's centre in the section.
        distance_to_membrane: (z, y, x) float32, nanometres from the border to the next neurite, at least 0.
    """

    centres: Centres
    nearest: np.ndarray
    distance_to_centre: np.ndarray
    distance_to_membrane: np.ndarray


@dataclass(frozen=True)
class Neurites:
    """All neurites of an endless volume.

    Attributes:
        seed: the volume is a pure function of it.
        spacing: mean distance between neighbouring neurites in nanometres.
    """

    seed: int
    spacing: float

    @property
    def reach(self) -> float:
        """How far bending can move a point, in nanometres per axis."""
        return (BEND + RIPPLE) * self.spacing

    def lattice_range(self, begin: float, end: float) -> tuple[int, int]:
        """First and one past the last lattice cell whose neurites can be at positions begin..end (nanometres)."""
        first = int(np.floor((begin - self.reach) / self.spacing)) - MARGIN
        return first, int(np.ceil((end + self.reach) / self.spacing)) + MARGIN

    def cells(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> Cells:
        """The nearest neurites on the grid that three axes of positions span.

        Args:
            z, y, x: positions in nanometres, ascending float64 arrays.
        """
        bent_y, bent_x = self._bend(z, y, x)
        centres = self.centres(
            z, (float(bent_y.min()), float(bent_y.max())), (float(bent_x.min()), float(bent_x.max()))
        )
        nearest = np.empty(bent_y.shape, np.int32)
        to_centre = np.empty(bent_y.shape, np.float32)
        to_membrane = np.empty(bent_y.shape, np.float32)
        for tile in _tiles((z, y, x), (2 * self.spacing, TILE * self.spacing, TILE * self.spacing)):
            found = _two_nearest(centres, tile[0], bent_y[tile], bent_x[tile])
            nearest[tile], to_centre[tile], to_membrane[tile] = found
        return Cells(centres, nearest, to_centre, to_membrane)

    def centres(self, z: np.ndarray, y_range: tuple[float, float], x_range: tuple[float, float]) -> Centres:
        """The neurites that can be nearest or second nearest to a point of a region.

        A centre is at most JITTER + WANDER away from its lattice cell's middle per axis, so that two centres lie within
        1.6 spacings of any point, and centres beyond MARGIN cells are farther than those by more than any weight.
        """
        rows, columns = (
            np.arange(int(np.floor(low / self.spacing)) - MARGIN, int(np.floor(high / self.spacing)) + MARGIN + 1)
            for low, high in (y_range, x_range)
        )
        row, column = (index.ravel() for index in np.meshgrid(rows, columns, indexing="ij"))
        path = (row, column)
        offset_y = JITTER * hashing.symmetric(self.seed, _JITTER_Y, *path)
        offset_x = JITTER * hashing.symmetric(self.seed, _JITTER_X, *path)
        wander_y = WANDER * self._along(z, _WANDER_Y, path, WANDER_PITCH)
        wander_x = WANDER * self._along(z, _WANDER_X, path, WANDER_PITCH)
        swelling = self._along(z, _SWELLING, path, CALIBRE_PITCH)
        weight = CALIBRE * (0.6 * hashing.symmetric(self.seed, _CALIBRE, *path) + 0.4 * swelling)
        return Centres(
            row,
            column,
            ((row + 0.5 + offset_y + wander_y) * self.spacing).astype(np.float32),
            ((column + 0.5 + offset_x + wander_x) * self.spacing).astype(np.float32),
            (weight * self.spacing**2).astype(np.float32),
        )

    def _along(self, z: np.ndarray, stream: int, path: tuple[np.ndarray, np.ndarray], pitch: float) -> np.ndarray:
        return noise.smooth_paths(self.seed, stream, path, z, pitch * self.spacing)

    def _bend(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each voxel lies in the plane of the straight cells: two (z, y, x) float32 arrays in nanometres."""
        bent = []
        for bend, ripple, position in ((_BEND_Y, _RIPPLE_Y, y[:, None]), (_BEND_X, _RIPPLE_X, x)):
            field = noise.smooth_noise(self.seed, bend, (z, y, x), [p * self.spacing for p in BEND_PITCH])
            field *= np.float32(BEND * self.spacing)
            ripples = noise.smooth_noise(self.seed, ripple, (z, y, x), [p * self.spacing for p in RIPPLE_PITCH])
            ripples *= np.float32(RIPPLE * self.spacing)
            field += ripples
            field += position.astype(np.float32)
            bent.append(field)
        return bent[0], bent[1]


def _tiles(positions: Sequence[np.ndarray], extent: Sequence[float]) -> list[tuple[slice, slice, slice]]:
    """Slices that cut a grid of positions into tiles of about `extent` nanometres."""
    slices = []
    for position, length in zip(positions, extent, strict=True):
        step = float(position[1] - position[0]) if len(position) > 1 else length
        count = max(1, int(length / step))
        slices.append([slice(begin, min(begin + count, len(position))) for begin in range(0, len(position), count)])
    return [(a, b, c) for a in slices[0] for b in slices[1] for c in slices[2]]


def _two_nearest(
    centres: Centres, sections: slice, y: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest neurite, squared distance to its centre, and distance to its border, for the voxels of a tile."""
    candidates = _candidates(centres, sections, y, x)
    best = np.full(y.shape, np.inf, np.float32)
    second = np.full(y.shape, np.inf, np.float32)
    which = np.zeros(y.shape, np.int32)
    runner_up = np.zeros(y.shape, np.int32)
    for candidate in candidates:
        power = y - centres.y[sections, candidate][:, None, None]
        power *= power
        across = x - centres.x[sections, candidate][:, None, None]
        across *= across
        power += across
        power -= centres.weight[sections, candidate][:, None, None]
        wins = power < best
        is_second = power < second
        np.copyto(runner_up, candidate, where=is_second)
        np.copyto(runner_up, which, where=wins)
        np.copyto(which, candidate, where=wins)
        np.maximum(best, np.minimum(second, power), out=second)
        np.minimum(best, power, out=best)
    section = np.arange(sections.start, sections.stop)[:, None, None]
    between_y = centres.y[section, which] - centres.y[section, runner_up]
    between_x = centres.x[section, which] - centres.x[section, runner_up]
    apart = np.sqrt(between_y * between_y + between_x * between_x)
    return which, best + centres.weight[section, which], (second - best) / (2 * np.maximum(apart, np.float32(1e-3)))


def _candidates(centres: Centres, sections: slice, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Indices of the neurites that can be nearest or second nearest to a voxel of a tile, ascending.

    A neurite whose least possible power distance exceeds the second least of the greatest possible ones cannot.
    """
    nearest = np.zeros(centres.y[sections].shape)
    farthest = np.zeros(centres.y[sections].shape)
    for position, centre in ((y, centres.y[sections]), (x, centres.x[sections])):
        low = position.min(axis=(1, 2)).astype(np.float64)[:, None]
        high = position.max(axis=(1, 2)).astype(np.float64)[:, None]
        nearest += np.maximum(0, np.maximum(low - centre, centre - high)) ** 2
        farthest += np.maximum(np.abs(low - centre), np.abs(high - centre)) ** 2
    nearest -= centres.weight[sections]
    farthest -= centres.weight[sections]
    bound = np.partition(farthest, 1, axis=1)[:, 1:2]
    tolerance = 1e-3 * np.abs(bound) + 1.0
    return np.flatnonzero((nearest <= bound + tolerance).any(axis=0))
