"""One type for volumes of every format and place: boxes of voxels, and where they lie in the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from funlib.geometry import Coordinate

from ..units import by
from .axes import AxisChoice
from .boxes import Box, read_mirrored
from .containers import Found
from .identity import Identity, identity_of
from .placement import Placement
from .stored_keys import missing_keys


class VoxelArray(Protocol):
    """An open array with the axes (z, y, x) or (k, z, y, x), to be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of all axes."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels."""

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Voxels along z, y, x that can only be decoded together."""

    @property
    def shards(self) -> tuple[int, int, int]:
        """Voxels along z, y, x that can only be written together."""

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box inside."""


@dataclass(frozen=True)
class WrappedArray:
    """An array that is read in another way than it lies there, else like it; see `VoxelArray`.

    Attributes:
        array: as it lies there.
    """

    array: VoxelArray

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of all axes."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels."""
        return self.array.dtype

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Voxels along z, y, x that can only be decoded together."""
        return self.array.chunks

    @property
    def shards(self) -> tuple[int, int, int]:
        """Voxels along z, y, x that can only be written together."""
        return self.array.shards


@dataclass(frozen=True)
class Volume:
    """An open array with its place in the world, to be read; what a run writes is an `arrays.RunVolume`.

    Attributes:
        array: the array, axes (z, y, x) or (k, z, y, x).
        placement: voxel size and offset, and who says so.
        found: the metadata that it was found with.
        choice: how the stored axes are read.
        stored_shape: extents of the stored axes, in C order.
    """

    array: VoxelArray
    placement: Placement
    found: Found
    choice: AxisChoice
    stored_shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Path or URL, for messages."""
        return self.found.name

    @property
    def shape(self) -> Coordinate:
        """Spatial extent in voxels."""
        return Coordinate(self.array.shape[-3:])

    @property
    def box(self) -> Box:
        """All voxels."""
        return Box.of_shape(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels, in the byte order of this machine."""
        return self.array.dtype

    @property
    def channels(self) -> int | None:
        """Extent of the first axis if it counts channels; None for (z, y, x)."""
        return self.array.shape[0] if len(self.array.shape) == 4 else None

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Nanometres, order z, y, x.

        Raises:
            ValueError: it is unknown, and the volume was opened although.
        """
        if self.placement.voxel_size is None:
            raise ValueError(f"the voxel size of {self.name} is unknown")
        return self.placement.voxel_size

    @property
    def offset(self) -> tuple[float, float, float]:
        """Position of the first voxel in nanometres, order z, y, x."""
        return self.placement.offset

    @property
    def chunks(self) -> Coordinate:
        """Voxels that can only be decoded together."""
        return Coordinate(self.array.chunks)

    @property
    def shards(self) -> Coordinate:
        """Voxels that can only be written together."""
        return Coordinate(self.array.shards)

    @property
    def text(self) -> str:
        """Shape, voxel size and offset for people, in one line."""
        parts = [f"{by(self.shape)} voxels", self.placement.text]
        if any(self.offset):
            parts.append(f"offset {by(self.offset)} nm")
        return ", ".join(parts)

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box that lies inside the volume; (z, y, x) or (k, z, y, x).

        Raises:
            StorageUnavailable: the server does not answer.
            UserError: a chunk is damaged, or access is denied.
        """
        return self.array.read(box)

    def read_mirrored(self, box: Box) -> np.ndarray:
        """The voxels of a box that may reach beyond the volume, mirrored at its faces (edge voxel not repeated)."""
        return read_mirrored(self.read, self.shape, box)

    def missing(self, box: Box) -> list[str]:
        """Files of a box, chunks or shards, that are not there: their voxels are read as the fill value.

        Raises:
            StorageUnavailable: the server does not answer.
            ValueError: the format does not name files by positions.
        """
        level = self.found.level if self.found.level is not None else 0
        return missing_keys(self.found.array, self.choice, self.stored_shape, box, level)

    def identity(self, samples: int = 16) -> Identity:
        """What tells whether the data changed; see `identity_of`."""
        return identity_of(self, samples)
