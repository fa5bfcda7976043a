"""Volumes on disk: zarr arrays that know their voxel size, offset and axes, and arithmetic on their regions.

Arrays follow the attribute convention of `funlib.persistence` (`open_ds` reads them). They are opened with zarr
itself: the engine reads and writes boxes of voxels, and a lazy graph over millions of chunks would cost more than the
data. Positions in the world are nanometres (`Roi`, `Coordinate`); array indices are voxels (`Box`). Order z, y, x.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from funlib.geometry import Coordinate, Roi
from numcodecs import Blosc

from ..errors import UserError
from .chunks import CheckedStore, decoded

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

    def split(self, shape: Sequence[int]) -> Iterator[Box]:
        """Boxes of `shape` voxels that cover this one, in C order; those at its far faces may be smaller."""
        step = Coordinate(shape)
        for begin in itertools.product(*map(range, self.begin, self.end, step)):
            yield Box(Coordinate(begin), Coordinate(begin) + step).intersect(self)

    def contains(self, other: Box) -> bool:
        """Whether every voxel of `other` lies in this box."""
        return self.intersect(other) == other


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
            return self._read_chunks(box)
        except (RuntimeError, ValueError, OSError) as error:
            where = f"voxels {tuple(box.begin)} to {tuple(box.end)}"
            raise UserError(f"a chunk in {where} cannot be read ({error})", self.name) from error

    def _read_chunks(self, box: Box) -> np.ndarray:
        """As zarr reads a box, but of no chunk more is decoded than the sections in the box."""
        data = np.empty((*self.array.shape[:-3], *(max(0, extent) for extent in box.shape)), self.array.dtype)
        for name, cell, part in chunks_of(self, box):
            encoded = self.array.store.chunk(f"{self.array.path}/{name}")
            found = 0 if encoded is None else decoded(self.array, encoded, *part.relative_to(cell).slices)
            crop(data, part.relative_to(box))[:] = found
        return data

    def read_mirrored(self, box: Box) -> np.ndarray:
        """The voxels of a box that may reach beyond the volume, mirrored at its faces (edge voxel not repeated)."""
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
        """Store the voxels of a box.

        Raises:
            UserError: the disk is full or not writable.
        """
        try:
            self.array[(..., *box.slices)] = data
        except (OSError, KeyError) as error:  # zarr raises KeyError where it cannot create a folder
            raise UserError(f"cannot be written: {getattr(error, 'strerror', None) or error}", self.name) from error


def chunks_of(volume: Volume, box: Box) -> Iterator[tuple[str, Box, Box]]:
    """The chunks that share voxels with a box: file name, all voxels of a full chunk there, and those in the box."""
    chunk = Coordinate(volume.array.chunks[-3:])
    channels = [0] * (volume.array.ndim - 3)
    for position in cells_of(box, chunk):
        begin = Coordinate(position) * chunk
        cell = Box(begin, begin + chunk)
        yield ".".join(str(index) for index in [*channels, *position]), cell, cell.intersect(box)


def mirror_indices(begin: int, end: int, extent: int) -> np.ndarray:
    """Indices begin..end-1 folded back into 0..extent-1 by mirroring at both ends, however far they reach."""
    if extent == 1:
        return np.zeros(end - begin, dtype=np.int64)
    period = 2 * (extent - 1)
    folded = np.arange(begin, end) % period
    return np.where(folded < extent, folded, period - folded)


def compressor_of(dtype: Any) -> Blosc:
    """How chunks are compressed; chosen on real data with `benchmarks/codecs.py`.

    Bytes of images and affinities hardly repeat, whatever is spent on them. Of ids, most bytes are those of the voxel
    before, which shows once the bytes are sorted by their place in the number.
    """
    if np.dtype(dtype).itemsize == 1:
        return Blosc(cname="zstd", clevel=1, shuffle=Blosc.NOSHUFFLE)
    return Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE)


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
    name = f"{container}/{dataset}"
    voxel_size = Coordinate(like.voxel_size if voxel_size is None and like else voxel_size or (1, 1, 1))
    offset = Coordinate(like.offset if offset is None and like else offset or (0, 0, 0))
    channels = tuple(shape[:-3])
    try:
        container.mkdir(parents=True, exist_ok=True)
        array = zarr.open_group(CheckedStore(str(container)), mode="a").create_dataset(
            dataset,
            shape=tuple(shape),
            chunks=(*channels, *(min(c, s) for c, s in zip(chunks, shape[-3:], strict=True))),
            dtype=dtype,
            compressor=compressor_of(dtype),
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
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}", name) from error
    except KeyError as error:  # what zarr makes of a folder that it cannot create
        raise UserError("cannot be written", name) from error
    return Volume(array, voxel_size, offset, name)


def open_volume(
    container: Path, dataset: str, mode: str = "r", store: Callable[[str], CheckedStore] = CheckedStore
) -> Volume:
    """Open an array of a container.

    Args:
        container: path of the zarr container.
        dataset: name inside it.
        mode: `r` to read, `r+` to write as well.
        store: opens the container, if chunks are to be read or written in a way of their own.

    Raises:
        UserError: there is no such array, its metadata are damaged, or it does not say its voxel size.
    """
    name = f"{container}/{dataset}"
    if not volume_exists(container, dataset):
        raise UserError("there is no such dataset; run the earlier stages first", name)
    try:
        array = zarr.open_array(store(str(container)), path=dataset, mode=mode)
        attributes = array.attrs.asdict()
    except (ValueError, KeyError, OSError, zarr.errors.MetadataError) as error:
        raise UserError(
            f"the metadata cannot be read ({error}); delete the dataset and run its stage again", name
        ) from error
    if "voxel_size" not in attributes:
        raise UserError("the dataset has no voxel_size attribute", name)
    return Volume(array, Coordinate(attributes["voxel_size"]), Coordinate(attributes.get("offset", (0, 0, 0))), name)


def volume_exists(container: Path, dataset: str) -> bool:
    """Whether the container holds an array of this name."""
    return (container / dataset / ".zarray").exists()


def delete_volume(container: Path, dataset: str) -> None:
    """Delete an array if it exists."""
    shutil.rmtree(container / dataset, ignore_errors=True)
