"""Volumes of a run: arrays on disk that know their voxel size, offset and axes.

Arrays carry the attributes that `funlib.persistence` defined (`voxel_size`, `offset`, `axis_names`, `units`), and in
format 3 those of OME-NGFF. The engine reads and writes boxes of voxels. Array indices are voxels (`Box`);
positions in the world are nanometres, fractions allowed. Order z, y, x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from funlib.geometry import Coordinate

from ..config.base import plain_number
from ..errors import UserError
from ..small_files import DamagedFile, understanding
from .boxes import SPATIAL_AXES, ZERO, Box, cells_of, crop, mirror_indices, read_mirrored
from .codecs import refuse_codecs_of_objects
from .locations import Place
from .nanometres import Nanometres, three_numbers
from .run_arrays import StorageFormat, StoredArray, create_stored, open_stored
from .run_containers import ensure_container, find_files, prepare_group, remove_array, write_document
from .storage_errors import StorageUnavailable

__all__ = [
    "SPATIAL_AXES",
    "ZERO",
    "Box",
    "RunVolume",
    "cells_of",
    "create_volume",
    "crop",
    "delete_volume",
    "mirror_indices",
    "open_volume",
    "volume_exists",
]

MEND = "delete the dataset and run its stage again"
"""What to do about an array whose metadata are damaged."""


@dataclass(frozen=True)
class RunVolume:
    """An open array that a run has written, with its place in the world. What others have written is a `volume.Volume`.

    Attributes:
        array: axes (z, y, x) or (k, z, y, x).
        voxel_size: nanometres, order z, y, x.
        offset: position of the first voxel's corner in nanometres.
        name: path on disk, for messages.
    """

    array: StoredArray
    voxel_size: Nanometres
    offset: Nanometres
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
    def dtype(self) -> np.dtype:
        """Type of the voxels."""
        result: np.dtype = self.array.dtype
        return result

    @property
    def chunks(self) -> Coordinate:
        """Voxels that can only be decoded together."""
        return Coordinate(self.array.chunks[-3:])

    @property
    def channels(self) -> int | None:
        """Extent of the first axis if it counts channels; None for (z, y, x)."""
        return self.array.shape[0] if self.array.ndim == 4 else None

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box that lies inside the volume; axes as stored.

        Raises:
            UserError: a file is damaged, and is named.
        """
        return self.array.read(box)

    def read_mirrored(self, box: Box) -> np.ndarray:
        """The voxels of a box that may reach beyond the volume, mirrored at its faces (edge voxel not repeated)."""
        return read_mirrored(self.read, self.shape, box)

    def write(self, box: Box, data: np.ndarray) -> None:
        """Store the voxels of a box of whole shards, flushed to the disk.

        Raises:
            UserError: the disk is full or not writable.
            ValueError: the box cuts a shard.
        """
        self.array.write(box, data)


def create_volume(
    container: Place,
    dataset: str,
    shape: Sequence[int],
    dtype: Any,
    like: RunVolume | None = None,
    *,
    voxel_size: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
    chunks: Sequence[int],
    attributes: dict[str, Any] | None = None,
    storage_format: StorageFormat = 3,
    downsampling: Sequence[int] = (1, 1, 1),
) -> RunVolume:
    """Create an empty array (blosc-zstd), replacing one of the same name.

    Args:
        container: path or location of the zarr container.
        dataset: name inside it.
        shape: (z, y, x) or (k, z, y, x) in voxels.
        dtype: numpy dtype.
        like: take voxel size and offset from this volume.
        voxel_size, offset: nanometres, if `like` is not given.
        chunks: extent along z, y, x, in voxels, of what is written as one file; a channel axis is not divided.
        attributes: further attributes to store.
        storage_format: of the container, if there is none yet; one that is there keeps its own.
        downsampling: of a coarser level of a pyramid (`raw/s1`), how many voxels of the finest along z, y, x are one.

    Raises:
        UserError: the container cannot be written.
    """
    voxel_size = three_numbers(like.voxel_size if voxel_size is None and like else voxel_size or (1, 1, 1))
    offset = three_numbers(like.offset if offset is None and like else offset or (0, 0, 0))
    channels = tuple(shape[:-3])
    told = {
        "voxel_size": [plain_number(size) for size in voxel_size],
        "offset": [plain_number(position) for position in offset],
        "axis_names": ["c^"] * len(channels) + list(SPATIAL_AXES),
        "units": ["nm"] * 3,
        **(attributes or {}),
    }
    storage_format = ensure_container(container, storage_format)
    folder = prepare_group(container, dataset, storage_format, voxel_size, offset, bool(channels), downsampling)
    array = create_stored(folder, storage_format, shape, dtype, chunks, told)
    if storage_format == 2:
        write_document(folder, ".zattrs", told)
    return RunVolume(array, voxel_size, offset, f"{container}/{dataset}")


def open_volume(container: Place, dataset: str, mode: str = "r") -> RunVolume:
    """Open an array of a container, in the format that it has.

    Args:
        container: path or location of the zarr container.
        dataset: name inside it.
        mode: `r` to read, `r+` to write as well.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: there is no such array, its metadata are damaged, or it does not say its voxel size.
    """
    name = f"{container}/{dataset}"
    found = find_files(container, dataset)
    if found is None:
        raise UserError("there is no such dataset; run the earlier stages first", name)
    try:
        metadata, attributes = found.parsed(MEND)
        refuse_codecs_of_objects(metadata, name)
        with understanding(found.name, MEND):
            array = open_stored(found.folder, found.format, metadata, attributes, mode)
    except (DamagedFile, StorageUnavailable):
        raise
    except (OSError, UserError) as error:
        raise UserError(f"the metadata cannot be read ({error}); {MEND}", name) from error
    if "voxel_size" not in attributes:
        raise UserError(f"the dataset has no voxel_size attribute; {MEND}", name)
    with understanding(found.name, MEND):
        voxel_size, offset = attributes["voxel_size"], attributes.get("offset", (0, 0, 0))
        return RunVolume(array, three_numbers(voxel_size), three_numbers(offset), name)


def volume_exists(container: Place, dataset: str) -> bool:
    """Whether the container holds an array of this name."""
    return find_files(container, dataset) is not None


def delete_volume(container: Place, dataset: str) -> None:
    """Delete an array if it exists."""
    remove_array(container, dataset)
