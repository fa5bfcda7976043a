"""Volumes on disk: zarr arrays that know their voxel size, offset and axes, and arithmetic on their regions.

Arrays follow the attribute convention of `funlib.persistence` (`open_ds` reads them). They are opened with zarr
itself: the engine reads and writes boxes of voxels, and a lazy graph over millions of chunks would cost more than the
data. Positions in the world are nanometres (`Roi`, `Coordinate`); array indices are voxels (`Box`). Order z, y, x.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from funlib.geometry import Coordinate, Roi
from numcodecs import Blosc

from .errors import UserError

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

    def contains(self, other: Box) -> bool:
        """Whether every voxel of `other` lies in this box."""
        return self.intersect(other) == other


@dataclass(frozen=True)
class Volume:
    """An open zarr array with its place in the world.

    Attributes:
        array: the zarr array, axes (z, y, x) or (k, z, y, x).
        voxel_size: nanometres, order z, y, x.
        offset: position of the first voxel's corner in nanometres.
        name: path on disk, for messages.
    """

    array: zarr.Array
    voxel_size: Coordinate
    offset: Coordinate
    name: str

    @property
    def shape(self) -> Coordinate:
        """Spatial extent in voxels."""
        return Coordinate(self.array.shape[-3:])

    @property
    def box(self) -> Box:
        """All voxels."""
        return Box.of_shape(self.shape)

    @property
    def roi(self) -> Roi:
        """The region covered, in nanometres."""
        return Roi(self.offset, self.shape * self.voxel_size)

    def to_roi(self, box: Box) -> Roi:
        """A box of this volume's voxels as a region in nanometres."""
        return Roi(self.offset + box.begin * self.voxel_size, box.shape * self.voxel_size)

    def to_box(self, roi: Roi) -> Box:
        """A region in nanometres as a box of this volume's voxels.

        Raises:
            ValueError: the region does not lie on the voxel grid.
        """
        begin = roi.begin - self.offset
        if begin % self.voxel_size != Coordinate((0, 0, 0)) or roi.shape % self.voxel_size != Coordinate((0, 0, 0)):
            raise ValueError(f"{roi} does not lie on the voxel grid of {self.name}")
        return Box(begin / self.voxel_size, (begin + roi.shape) / self.voxel_size)

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box that lies inside the volume; axes as stored.

        Raises:
            UserError: a chunk cannot be read; names it.
        """
        try:
            return np.asarray(self.array[(..., *box.slices)])
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"a chunk in voxels {box.begin} to {box.end} cannot be read ({error})", self.name) from error

    def read_mirrored(self, box: Box) -> np.ndarray:
        """The voxels of a box that may reach beyond the volume, which is mirrored at its faces (edge voxel not repeated)."""
        indices = [
            mirror_indices(begin, end, extent)
            for begin, end, extent in zip(box.begin, box.end, self.shape, strict=True)
        ]
        inside = Box(Coordinate(int(i.min()) for i in indices), Coordinate(int(i.max()) + 1 for i in indices))
        data = self.read(inside)
        for axis, (index, first) in enumerate(zip(indices, inside.begin, strict=True)):
            local = index - first
            if not np.array_equal(local, np.arange(data.shape[data.ndim - 3 + axis])):
                data = np.take(data, local, axis=data.ndim - 3 + axis)
        return data

    def write(self, box: Box, data: np.ndarray) -> None:
        """Store the voxels of a box."""
        self.array[(..., *box.slices)] = data


def mirror_indices(begin: int, end: int, extent: int) -> np.ndarray:
    """Indices begin..end-1 folded back into 0..extent-1 by mirroring at both ends, however far they reach."""
    if extent == 1:
        return np.zeros(end - begin, dtype=np.int64)
    period = 2 * (extent - 1)
    folded = np.arange(begin, end) % period
    return np.where(folded < extent, folded, period - folded)


def create_volume(
    container: Path,
    dataset: str,
    shape: Sequence[int],
    dtype: Any,
    like: Volume | None = None,
    *,
    voxel_size: Sequence[int] | None = None,
    offset: Sequence[int] | None = None,
    chunks: Sequence[int],
    attributes: dict[str, Any] | None = None,
) -> Volume:
    """Create an empty array (zarr format 2, blosc-zstd), replacing one of the same name.

    Args:
        container: path of the zarr container.
        dataset: name inside it.
        shape: (z, y, x) or (k, z, y, x) in voxels.
        dtype: numpy dtype.
        like: take voxel size and offset from this volume.
        voxel_size, offset: nanometres, if `like` is not given.
        chunks: chunk extent along z, y, x in voxels; a channel axis is not divided.
        attributes: further attributes to store.

    Raises:
        UserError: the container cannot be written.
    """
    voxel_size = Coordinate(like.voxel_size if voxel_size is None and like else voxel_size or (1, 1, 1))
    offset = Coordinate(like.offset if offset is None and like else offset or (0, 0, 0))
    channels = tuple(shape[:-3])
    try:
        array = zarr.open_group(str(container), mode="a").create_dataset(
            dataset,
            shape=tuple(shape),
            chunks=(*channels, *(min(c, s) for c, s in zip(chunks, shape[-3:], strict=True))),
            dtype=dtype,
            compressor=Blosc(cname="zstd", clevel=3, shuffle=Blosc.BITSHUFFLE),
            fill_value=0,
            overwrite=True,
        )
        array.attrs.update(
            voxel_size=list(voxel_size),
            offset=list(offset),
            axis_names=["c^"] * len(channels) + list(SPATIAL_AXES),
            units=["nm"] * 3,
            **(attributes or {}),
        )
    except (PermissionError, NotADirectoryError, OSError) as error:
        raise UserError(f"cannot be written: {error}", f"{container}/{dataset}") from error
    return Volume(array, voxel_size, offset, f"{container}/{dataset}")


def open_volume(container: Path, dataset: str, mode: str = "r") -> Volume:
    """Open an array of a container.

    Args:
        container: path of the zarr container.
        dataset: name inside it.
        mode: `r` to read, `r+` to write as well.

    Raises:
        UserError: there is no such array, or it does not say its voxel size.
    """
    name = f"{container}/{dataset}"
    try:
        array = zarr.open_array(str(container), path=dataset, mode=mode)
    except (ValueError, KeyError, zarr.errors.ArrayNotFoundError, FileNotFoundError):
        raise UserError("there is no such dataset; run the earlier stages first", name) from None
    if "voxel_size" not in array.attrs:
        raise UserError("the dataset has no voxel_size attribute", name)
    return Volume(array, Coordinate(array.attrs["voxel_size"]), Coordinate(array.attrs["offset"]), name)


def volume_exists(container: Path, dataset: str) -> bool:
    """Whether the container holds an array of this name."""
    return (container / dataset / ".zarray").exists()


def delete_volume(container: Path, dataset: str) -> None:
    """Delete an array if it exists."""
    shutil.rmtree(container / dataset, ignore_errors=True)
