"""What lies inside neurites: mitochondria that follow their neurite, and vesicles.

A neurite is divided along z into slots; a slot may hold one mitochondrion, an ellipsoid around the neurite's path.
Vesicles lie on a jittered lattice of their own. Both are hashed from where they are, hence independent of the block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import hashing
from .neurites import Cells, Centres

SLOT = 4.0
"""Length of a slot along z, in spacings."""
HALF_LENGTH = (0.8, 1.6)
"""Range of half the length of a mitochondrion, in spacings."""
RADIUS = (0.22, 0.34)
"""Range of the radius of a mitochondrion, in spacings."""
OCCUPANCY = 0.7
"""Probability that a slot of a neurite with mitochondria holds one."""
VESICLE_PITCH = 56.0
"""Extent of the lattice cells that may hold one vesicle, in nanometres."""
VESICLE_RADIUS = 15.0
"""Radius of a vesicle in nanometres."""
VESICLE_DENSITY = 0.5
"""Probability that a lattice cell holds a vesicle, where there are any."""

_CARRIES, _OCCUPIED, _PLACE, _LENGTH, _RADIUS, _VESICLE_Y, _VESICLE_X, _VESICLE = range(32, 40)


@dataclass(frozen=True)
class Organelles:
    """Mitochondria and vesicles of all neurites.

    Attributes:
        seed, spacing: those of the neurites.
        probability: share of the neurites that carry mitochondria.
    """

    seed: int
    spacing: float
    probability: float

    def mitochondrion_depth(self, z: np.ndarray, cells: Cells) -> np.ndarray:
        """Depth below the surface of a mitochondrion in nanometres; negative outside.

        Args:
            z: (z,) positions of the sections in nanometres.
            cells: nearest neurites of the voxels.

        Returns:
            (z, y, x) float32.
        """
        radius = self._mitochondrion_radius(z, cells.centres)
        section = np.arange(len(z))[:, None, None]
        depth: np.ndarray = radius[section, cells.nearest]
        depth -= np.sqrt(np.maximum(cells.distance_to_centre, 0))
        return depth

    def _mitochondrion_radius(self, z: np.ndarray, centres: Centres) -> np.ndarray:
        """Radius of each neurite's mitochondrion in each section, (z, n) float32; negative where there is none."""
        path = (centres.rows, centres.columns)
        carries = hashing.uniform(self.seed, _CARRIES, *path) < self.probability
        slot = np.floor(z / (SLOT * self.spacing)).astype(np.int64)[:, None]
        present = carries & (hashing.uniform(self.seed, _OCCUPIED, *path, slot) < OCCUPANCY)
        half_length = _between(HALF_LENGTH, hashing.uniform(self.seed, _LENGTH, *path, slot)) * self.spacing
        radius = _between(RADIUS, hashing.uniform(self.seed, _RADIUS, *path, slot)) * self.spacing
        free = SLOT * self.spacing - 2 * half_length
        middle = slot * SLOT * self.spacing + half_length + free * hashing.uniform(self.seed, _PLACE, *path, slot)
        inside = 1 - ((z[:, None] - middle) / half_length) ** 2
        return np.where(present & (inside > 0), radius * np.sqrt(np.maximum(inside, 0)), -self.spacing).astype(
            np.float32
        )

    def vesicle_depth(self, sections: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Depth below the surface of a vesicle in nanometres; negative outside. Vesicles lie in one section each.

        Args:
            sections: (z,) numbers of the sections.
            y, x: positions in nanometres.

        Returns:
            (z, y, x) float32.
        """
        row, row_place = _lattice(y)
        column, column_place = _lattice(x)
        rows, columns = np.arange(row[0], row[-1] + 1), np.arange(column[0], column[-1] + 1)
        site = (sections[:, None, None], rows[:, None], columns)
        room = VESICLE_PITCH - 2 * VESICLE_RADIUS
        centre_y, centre_x = (
            (VESICLE_RADIUS + room * hashing.uniform(self.seed, stream, *site)).astype(np.float32)
            for stream in (_VESICLE_Y, _VESICLE_X)
        )
        radius = np.where(hashing.uniform(self.seed, _VESICLE, *site) < VESICLE_DENSITY, VESICLE_RADIUS, -VESICLE_PITCH)
        at = np.ix_(np.arange(len(sections)), row - row[0], column - column[0])
        away_y = centre_y[at]
        away_y -= row_place[:, None]
        away_x = centre_x[at]
        away_x -= column_place
        away_y *= away_y
        away_x *= away_x
        away_y += away_x
        result: np.ndarray = radius.astype(np.float32)[at] - np.sqrt(away_y)
        return result


def _between(limits: tuple[float, float], share: np.ndarray) -> np.ndarray:
    return limits[0] + (limits[1] - limits[0]) * share


def _lattice(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lattice cell of each position, and the position inside it."""
    cell = np.floor(position / VESICLE_PITCH).astype(np.int64)
    return cell, (position - cell * VESICLE_PITCH).astype(np.float32)
