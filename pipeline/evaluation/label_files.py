"""Label volumes that are scored: files and folders of any format, or URLs, 2D or 3D, read in the order z, y, x."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..datasets.section_files import section_files
from ..datasets.tiff import StoredArray, open_tiff, read_stored
from ..errors import UserError
from ..label_ids import can_hold, without_labels
from ..units import by
from ..volumes import Box
from ..volumes.containers import listing
from ..volumes.dialects import tiff
from ..volumes.file_arrays import dataset_names, open_hdf5
from ..volumes.formats import Format, look
from ..volumes.locations import Location
from ..volumes.opening import Wanted, open_at
from ..volumes.placement import combined
from ..volumes.volume import Volume

SAME_PLACE = 1e-4
"""Up to this part of a voxel two places are one: formats round in different ways."""


@dataclass(frozen=True)
class LabelFile:
    """Ids in a file, folder or bucket, with what is stated about their place.

    Attributes:
        name: path or URL, for messages.
        shape: (z, y, x) in voxels; an image is one section.
        dtype: of whole numbers.
        voxel_size: nanometres, order z, y, x; None if nothing states it.
        offset: of the first voxel, likewise.
        read_stored: reads a box.
        ignored: ids whose voxels do not count; they are read as 0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    voxel_size: Sequence[float] | None
    offset: Sequence[float] | None
    read_stored: Callable[[Box], np.ndarray]
    ignored: tuple[int, ...] = ()

    def read(self, box: Box) -> np.ndarray:
        """The ids of a box, (z, y, x).

        Raises:
            StorageUnavailable: the server does not answer.
            UserError: they cannot be read.
        """
        return without_labels(self.read_stored(box), self.ignored)


def open_labels(place: str | Path, stack: ExitStack) -> LabelFile:
    """Open ids: `file.h5/dataset`, `store.zarr/dataset`, OME-NGFF, N5, precomputed, `file.tif`, `file.npy`, or a URL.

    Args:
        place: path or URL; a container that holds a single array is that array.
        stack: keeps the file open until it closes.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: there is no such array, or it is none of whole numbers in two or three dimensions.
    """
    location = Location.of(place)
    container, dataset = _split(location) if location.is_local else (location, None)
    if dataset is not None and container.file.is_file() and _format_of(container) in ("tiff", "npy"):
        raise UserError(f"{container.name} has no datasets; leave out {dataset!r}", str(place))
    found = _open_tiff(container, stack) if _is_tiff(container) else _open_volume(container, dataset)
    if found.dtype.kind not in "ui":
        raise UserError(f"is {found.dtype.name}; ids of labels are whole numbers", found.name)
    return found


def require_ignored_fit(labels: LabelFile) -> None:
    """Refuse an id to ignore that no voxel can have: another one is meant.

    Raises:
        UserError: the type of the labels cannot hold it.
    """
    for label in labels.ignored:
        if not can_hold(labels.dtype, label):
            limits = np.iinfo(labels.dtype)
            raise UserError(
                f"{labels.name} is {labels.dtype.name}, whose ids are {limits.min} to {limits.max}, never {label}",
                "--ignore",
            )


def require_one_place(first: LabelFile, other: LabelFile) -> None:
    """Refuse volumes of different shape, voxel size or offset; what one of them does not state contradicts nothing.

    Raises:
        UserError: they differ.
    """
    if first.shape != other.shape:
        raise UserError(
            f"has the shape {by(first.shape)}, but {other.name} has {by(other.shape)}; give volumes of one region",
            first.name,
        )
    unit = first.voxel_size or other.voxel_size or (1.0, 1.0, 1.0)
    pairs = (
        ("has voxels of", first.voxel_size, other.voxel_size, "give volumes of one resolution"),
        ("begins at", first.offset, other.offset, "give volumes of one region"),
    )
    for says, own, others, cure in pairs:
        if own is not None and others is not None and not _is_close(own, others, unit):
            said = says.partition(" ")[0]
            raise UserError(f"{says} {by(own)} nm, but {other.name} {said} {by(others)} nm; {cure}", first.name)


def _is_close(first: Sequence[float], other: Sequence[float], unit: Sequence[float]) -> bool:
    return all(abs(a - b) <= SAME_PLACE * size for a, b, size in zip(first, other, unit, strict=True))


def _split(location: Location) -> tuple[Location, str | None]:
    """The file or folder that a path runs through, and the dataset that the rest of it names."""
    path = location.file
    if path.is_dir():
        return location, None
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if existing.is_dir() and look(Location.of(existing)) is None:
        raise UserError(
            "there is no such file or folder; expected file.h5/dataset, store.zarr/dataset, a TIFF or npy file, or a"
            " URL",
            location.name,
        )
    inside = str(path.relative_to(existing))
    return Location.of(existing), None if inside == "." else inside


def _is_tiff(location: Location) -> bool:
    """Whether it is a TIFF file, or a folder of TIFF files and nothing else that is known."""
    if not location.is_local:
        return False
    found = _format_of(location)
    if found is None:
        return location.file.is_dir() and bool(section_files(location.file))
    return found == "tiff"


def _format_of(location: Location) -> Format | None:
    found = look(location)
    return None if found is None else found.format


def _open_tiff(location: Location, stack: ExitStack) -> LabelFile:
    stored = stack.enter_context(open_tiff(location.file, location.name, images=True))

    def read(box: Box) -> np.ndarray:
        return read_stored(stored.array, box.slices, location.name)

    shape = tuple(int(extent) for extent in stored.array.shape)
    return LabelFile(location.name, shape, np.dtype(stored.array.dtype), _tiff_voxel_size(stored), None, read)


def _tiff_voxel_size(stored: StoredArray) -> tuple[float, float, float] | None:
    """Nanometres, as far as the file says them and they are understood: scores do not need them."""
    try:
        return combined(tiff.statements(stored.metadata), stored.name, required=False).voxel_size
    except UserError:
        return None


def _open_volume(location: Location, dataset: str | None) -> LabelFile:
    volume = open_at(location, Wanted(dataset, only=True, placed=False, images=True))
    if volume is None:
        raise UserError(f"name one of its datasets, {location.name}/…: it has {_listing(location)}")
    return _of_volume(volume)


def _of_volume(volume: Volume) -> LabelFile:
    placement = volume.placement
    return LabelFile(
        volume.name,
        tuple(volume.shape),
        volume.dtype,
        placement.voxel_size,
        placement.offset if placement.offset_from else None,
        volume.read,
    )


def _listing(location: Location) -> str:
    """The arrays of a container, for a message."""
    if location.is_local and location.file.is_file():
        with open_hdf5(location.file) as file:
            return ", ".join(dataset_names(file)) or "none"
    node = look(location)
    return "none" if node is None else listing(node)
