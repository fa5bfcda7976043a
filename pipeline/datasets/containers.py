"""Datasets inside HDF5 files and zarr or N5 containers: find them, describe them, read boxes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from zarr.n5 import N5Store

from ..errors import UserError
from . import supervoxels
from .metadata import Placement, read_placement

CHUNK_CACHE = 64 * 2**20
"""Bytes of decoded HDF5 chunks that are kept."""


@dataclass(frozen=True)
class StoredArray:
    """An array as a file holds it, before its axes are put in order.

    Attributes:
        array: indexable like a numpy array, with `shape` and `dtype`.
        name: file and dataset, for messages.
        placement: what the file says about voxel size, offset and axes.
        chunks: voxels that can only be decoded together, in stored order.
        reverse: the placement was stated in the opposite order (N5).
    """

    array: Any
    name: str
    placement: Placement
    chunks: tuple[int, ...]
    reverse: bool = False


@dataclass(frozen=True)
class OpenContainer:
    """An open HDF5, zarr or N5 container.

    Attributes:
        root: its root group, or the root array of a container that is one array.
        path: where it lies.
        reverse: attributes list vectors in the opposite order of the axes (N5).
    """

    root: Any
    path: Path
    reverse: bool = False

    def names(self) -> list[str]:
        """The paths of all arrays inside, sorted."""
        if isinstance(self.root, zarr.Array):
            return [""]
        found: list[str] = []

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset | zarr.Array):
                found.append(name)

        self.root.visititems(note)
        return sorted(found)

    def find(self, dataset: str | None, candidates: Sequence[str], key: str) -> StoredArray | None:
        """The dataset named, or the one candidate that exists.

        Args:
            dataset: name from the config; None to look for a candidate.
            candidates: customary names.
            key: dotted config path of the name, for messages.

        Returns:
            None if no name is given and no candidate exists.

        Raises:
            UserError: the named dataset does not exist, or several candidates do.
        """
        names = self.names()
        if names == [""] and dataset in (None, "", "/"):
            return self.get("")
        if dataset is not None:
            if dataset.strip("/") not in names:
                raise UserError(f"{self.path} has no dataset {dataset!r}; it has {listing(names)}", key)
            return self.get(dataset.strip("/"))
        existing = [name for name in candidates if name in names]
        if len(existing) > 1:
            raise UserError(f"{self.path} has several candidates ({', '.join(existing)}); name one of them", key)
        return self.get(existing[0]) if existing else None

    def get(self, name: str) -> StoredArray:
        """The dataset of a name that exists."""
        array = self.root[name] if name else self.root
        label = f"{self.path}/{name}" if name else str(self.path)
        placement = Placement()
        for attributes in self._attributes(name, array):
            placement = placement.or_else(read_placement(attributes, label, self.reverse))
        chunks = tuple(array.chunks or (1,) * array.ndim)
        return StoredArray(self._bodies(name, array, label), label, placement, chunks, self.reverse)

    def _bodies(self, name: str, array: Any, label: str) -> Any:
        """The array itself, or its bodies if it holds supervoxels and a table that merges them lies beside it."""
        group, _, last = name.rpartition("/")
        table = f"{group}/{supervoxels.TABLE}".lstrip("/")
        if last != supervoxels.STACK or table not in self.names():
            return array
        return supervoxels.Bodies.of(array, np.asarray(self.root[table][:]), label)

    def _attributes(self, name: str, array: Any) -> Iterator[Mapping[str, Any]]:
        """Attributes of an array and of the groups above it, the nearest first."""
        yield dict(array.attrs)
        parts = name.split("/")[:-1] if name else []
        for depth in range(len(parts), -1, -1):
            group = self.root["/".join(parts[:depth])] if depth else self.root
            if group is not array:
                yield dict(group.attrs)


def listing(names: Sequence[str]) -> str:
    """Names for a message, the first ten of them."""
    if not names:
        return "none"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


@contextmanager
def open_hdf5(path: Path, where: str) -> Iterator[OpenContainer]:
    """Open an HDF5 file for reading.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        file = h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE)
    except OSError as error:
        raise UserError(f"{path} cannot be opened as HDF5: {error}", where) from None
    with file:
        yield OpenContainer(file, path)


@contextmanager
def open_zarr(path: Path, where: str) -> Iterator[OpenContainer]:
    """Open a zarr container (format 2) for reading.

    Raises:
        UserError: it is of another format.
    """
    if (path / "zarr.json").exists():
        raise UserError(f"{path} is of zarr format 3; only format 2 can be read: convert it, or export to HDF5", where)
    yield OpenContainer(zarr.open(str(path), mode="r"), path)


@contextmanager
def open_n5(path: Path, where: str) -> Iterator[OpenContainer]:
    """Open an N5 container for reading. Its arrays appear in z, y, x order; its attributes are listed x first.

    Raises:
        UserError: it cannot be read.
    """
    try:
        yield OpenContainer(zarr.open(N5Store(str(path)), mode="r"), path, reverse=True)
    except (zarr.errors.PathNotFoundError, KeyError) as error:
        raise UserError(f"{path} cannot be opened as N5: {error}", where) from None


def read_stored(array: Any, index: tuple[slice, ...], name: str) -> np.ndarray:
    """Read a part of a stored array.

    Raises:
        UserError: it cannot be read, because the file is damaged, say.
    """
    try:
        return np.asarray(array[index])
    except (UserError, MemoryError):
        raise
    except Exception as error:  # every format and codec raises kinds of its own
        begin, end = [s.start for s in index], [s.stop for s in index]
        raise UserError(f"the voxels from {begin} to {end} cannot be read: {error}", name) from error
