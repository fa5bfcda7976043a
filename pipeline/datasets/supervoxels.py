"""Labels stored as supervoxels plus a table that merges them into bodies (the NeuroProof layout of the FlyEM
samples).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError

STACK, TABLE = "stack", "transforms"
"""Names of the supervoxel volume and, beside it, of the table with rows (supervoxel, body)."""


@dataclass(frozen=True)
class Bodies:
    """Supervoxels that are merged into bodies as they are read; indexable like the array itself.

    Attributes:
        array: the supervoxels.
        supervoxels: (n,) their ids, ascending.
        bodies: (n,) the body of each.
        name: file and dataset, for messages.
    """

    array: Any
    supervoxels: np.ndarray
    bodies: np.ndarray
    name: str

    @staticmethod
    def of(array: Any, table: np.ndarray, name: str) -> Bodies:
        """Merge an array of supervoxels by a table with rows (supervoxel, body).

        Raises:
            UserError: the table has another shape.
        """
        if table.ndim != 2 or table.shape[1] != 2 or len(table) == 0:
            raise UserError(
                f"the table of bodies must have rows of two numbers, but has shape {table.shape}", f"{name}, {TABLE}"
            )
        table = table[np.argsort(table[:, 0], kind="stable")]
        return Bodies(array, table[:, 0], table[:, 1], name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the stored array."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the bodies' ids."""
        return self.bodies.dtype

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """The bodies of a box; 0 stays 0."""
        stored = np.asarray(self.array[index])
        unique, inverse = np.unique(stored, return_inverse=True)
        place = np.searchsorted(self.supervoxels, unique).clip(max=len(self.supervoxels) - 1)
        known = self.supervoxels[place] == unique
        unknown = unique[~known & (unique != 0)]
        if len(unknown):
            raise UserError(f"the supervoxel {unknown[0]} is not in the table {TABLE}", self.name)
        return np.where(known, self.bodies[place], 0).astype(self.dtype)[inverse].reshape(stored.shape)
