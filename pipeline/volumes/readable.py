"""What every volume can do, whatever it is made of: arrays of a run, sources in place, labels on raw's voxels."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from funlib.geometry import Coordinate

from .arrays import Box
from .nanometres import Nanometres


class Readable(Protocol):
    """A volume that is read in boxes."""

    @property
    def name(self) -> str:
        """Path or URL, for messages."""

    @property
    def shape(self) -> Coordinate:
        """Spatial extent in voxels."""

    @property
    def box(self) -> Box:
        """All voxels."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels."""

    @property
    def chunks(self) -> Coordinate:
        """Voxels that can only be decoded together."""

    @property
    def channels(self) -> int | None:
        """Extent of the first axis if it counts channels; None for (z, y, x)."""

    @property
    def voxel_size(self) -> Nanometres:
        """Nanometres, order z, y, x."""

    @property
    def offset(self) -> Nanometres:
        """Position of the first voxel in nanometres, order z, y, x."""

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box inside."""
