"""Arrays in single files of this machine: HDF5 datasets and npy files, behind the same face as arrays of chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import UserError
from ..small_files import NOT_UNDERSTOOD, DamagedFile, read_npy
from .axes import AxisChoice
from .boxes import Box
from .containers import LISTED_IN_MESSAGES, Found
from .dialects.units import plain
from .formats import Node
from .links import AllowedLinks, hdf5_dataset
from .locations import Location

UNREADABLE: tuple[type[Exception], ...] = (*NOT_UNDERSTOOD, RuntimeError, OSError, MemoryError)
"""What h5py, numpy and filters raise when a file is not what it says."""
CHUNK_CACHE = 64 * 2**20
"""Bytes of decoded HDF5 chunks that are kept."""
UNCHUNKED = 64
"""Voxels along an axis that are read at once of files without chunks."""
FILTERS = {32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32026: "blosc2"}
"""Filters of HDF5 that need a plugin, by the numbers that files name them with."""


@dataclass(frozen=True)
class FileArray:
    """An array of a file, read in the order z, y, x.

    Attributes:
        stored: indexable like a numpy array.
        choice: how its axes are read.
        stored_chunks: voxels that can only be decoded together, in stored order.
        name: file and dataset.
    """

    stored: Any
    choice: AxisChoice
    stored_chunks: tuple[int, ...]
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of all axes that are read."""
        return tuple(self.stored.shape[axis] for axis in self._axes)

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels, in the byte order of this machine."""
        native: np.dtype = np.dtype(self.stored.dtype).newbyteorder("=")
        return native

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Voxels along z, y, x that can only be decoded together."""
        z, y, x = (self.stored_chunks[axis] for axis in self.choice.order)
        return z, y, x

    @property
    def shards(self) -> tuple[int, int, int]:
        """As `chunks`."""
        return self.chunks

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box inside.

        Raises:
            UserError: the file is damaged.
        """
        index: list[Any] = [slice(None)] * len(self.stored.shape)
        for axis, number in self.choice.fixed.items():
            index[axis] = slice(number, number + 1)
        for axis, part in zip(self.choice.order, box.slices, strict=True):
            index[axis] = part
        try:
            data = np.asarray(self.stored[tuple(index)])
        except UNREADABLE as error:
            where = f"voxels {tuple(box.begin)} to {tuple(box.end)}"
            raise UserError(f"a chunk in {where} cannot be read ({error})", self.name) from error
        data = data.transpose(*self._axes, *self.choice.fixed)
        shape = data.shape[: len(self._axes)]
        return data.reshape(shape).astype(self.dtype, copy=False)

    @property
    def _axes(self) -> tuple[int, ...]:
        channels = () if self.choice.channels is None else (self.choice.channels,)
        return (*channels, *self.choice.order)


@dataclass(frozen=True)
class Image:
    """A stored array of two axes as a stack of one section."""

    stored: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, *, *)."""
        return (1, *self.stored.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels as stored."""
        stored: np.dtype = np.dtype(self.stored.dtype)
        return stored

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """The voxels of a box."""
        data: np.ndarray = np.asarray(self.stored[index[1:]])[np.newaxis][index[0]]
        return data


def find_in_hdf5(
    file: h5py.File,
    location: Location,
    dataset: str | None,
    candidates: Sequence[str],
    where: str,
    links: AllowedLinks = AllowedLinks(),  # noqa: B008  it is frozen
) -> Found | None:
    """A dataset of an HDF5 file, by its name or a customary one; None if no name is given and no candidate exists.

    Raises:
        UserError: it is no dataset, there are several candidates, it is a link to another file that `links` does not
            allow, or a filter to decode it is missing.
    """
    path = location.file
    if dataset is None:
        existing = [n for n in candidates if isinstance(hdf5_dataset(file, n, path, links), h5py.Dataset)]
        if len(existing) > 1:
            raise UserError(f"{location.name} has several candidates ({', '.join(existing)}); name one of them", where)
        if not existing:
            return None
        dataset = existing[0]
    array = hdf5_dataset(file, dataset.strip("/") or "/", path, links)
    if not isinstance(array, h5py.Dataset):
        names = [name for name, _ in zip(dataset_names(file), range(LISTED_IN_MESSAGES), strict=False)]
        raise UserError(f"{location.name} has no dataset {dataset!r}; it has {', '.join(names) or 'none'}", where)
    _require_filters(array, f"{location.name}/{dataset}")
    node = Node(location.child(dataset), "hdf5", True, {"shape": list(array.shape)}, plain(dict(array.attrs)))
    parts = dataset.strip("/").split("/")
    groups = []
    for depth in reversed(range(len(parts))):  # by their paths: h5py loses its way to parents behind external links
        attributes = plain(dict(file["/".join(parts[:depth]) or "/"].attrs))
        groups.append((Node(location, "hdf5", False, {}, attributes), "/".join(parts[depth:])))
    return Found(node, tuple(groups))


def dataset_names(group: h5py.Group, prefix: str = "") -> Iterator[str]:
    """Paths of the datasets below a group, in the order of their names; their data are not touched."""
    for name in sorted(group):
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            continue
        kind = group.get(name, getclass=True)
        if kind is h5py.Dataset:
            yield f"{prefix}{name}"
        elif kind is h5py.Group and isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield from dataset_names(group[name], f"{prefix}{name}/")


def open_hdf5(path: Path, where: str = "") -> h5py.File:
    """Open an HDF5 file for reading.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        return h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE)
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be opened as HDF5: {error}", where) from error


def open_npy(path: Path) -> np.ndarray:
    """An npy file, mapped into memory. Python objects in it are never decoded.

    Raises:
        UserError: it is damaged, or holds objects.
    """
    try:
        return read_npy(path)
    except DamagedFile as error:
        raise UserError(f"cannot be read as npy: it {error.what}", str(path)) from error


def _require_filters(array: h5py.Dataset, name: str) -> None:
    """Whether all filters that the chunks went through are there.

    Raises:
        UserError: one is missing; names it and the cure.
    """
    properties = array.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, called = properties.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            known = FILTERS.get(code) or called.decode(errors="replace") or "unknown"
            raise UserError(
                f"its chunks need the HDF5 filter {code} ({known}), which is not installed: `pip install hdf5plugin`"
                " and set HDF5_PLUGIN_PATH to what `python -c 'import hdf5plugin; print(hdf5plugin.PLUGIN_PATH)'`"
                " prints, or save it with gzip",
                name,
            )
