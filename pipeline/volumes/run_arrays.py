"""The two formats of a run's arrays, through TensorStore. A shard is what one block writes: one file, one rename.

Format 3 is zarr 3: a shard holds chunks of about 64 voxels along each axis, each with a checksum (crc32c), as has the
shard's index; reading a box decodes the chunks that it touches. Format 2 is zarr 2: a shard is a single Blosc chunk.
Either way a write is in the file, under its name, on the disk when it returns, and a file that lost its end is refused.
In a bucket, where format 3 alone is written, a shard is one object, put in one request.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorstore as ts
from funlib.geometry import Coordinate

from ..errors import UserError
from .boxes import SPATIAL_AXES, Box, cells_of
from .locations import Location
from .storage import DATA_WAIT, METADATA_WAIT, context, exists, kvstore_spec, list_keys, remove_files, result_of, wait
from .storage_errors import plain_text, raise_explained, tells_of_content
from .tensors import DRIVERS, chunk_inside, compressor_of, zarr3_codecs

StorageFormat = Literal[2, 3]
"""Formats of a run's arrays, called after the version of zarr."""

_FILE = re.compile(r'(?:local file|reading) "([^"]+)"')


@dataclass(frozen=True)
class StoredArray:
    """An open array of a run; axes (z, y, x) or (k, z, y, x). Indexed as numpy arrays are, it reads.

    Attributes:
        location: the folder of its files.
        view: the array as TensorStore has it.
        format: 2 or 3.
        shards: extents of a file, all axes.
        attrs: its attributes, as they were when it was opened.
    """

    location: Location
    view: ts.TensorStore
    format: StorageFormat
    shards: tuple[int, ...]
    attrs: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The folder of its files on this machine."""
        return self.location.file

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of all axes."""
        return tuple(self.view.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return int(self.view.ndim)

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels."""
        return np.dtype(self.view.dtype.numpy_dtype)

    @property
    def fill_value(self) -> int | float:
        """What voxels are that no file holds."""
        stored = self.view.fill_value
        return 0 if stored is None else stored.item()

    @property
    def chunks(self) -> tuple[int, ...]:
        """Extents of what can only be decoded together, all axes."""
        extents = self.view.chunk_layout.read_chunk.shape or self.shards
        return tuple(int(extent or shard) for extent, shard in zip(extents, self.shards, strict=True))

    @property
    def grid_shape(self) -> Coordinate:
        """Shards along z, y, x."""
        return Coordinate(-(-e // s) for e, s in zip(self.shape[-3:], self.shards[-3:], strict=True))

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(wait(self.view[index].read(), self.location, DATA_WAIT, "read"))

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box inside; of files that are not there, zeros.

        Raises:
            StorageUnavailable: the server does not answer.
            UserError: a file is damaged, and is named; or the system refuses to read it.
        """
        z, y, x = (slice(begin, max(begin, end)) for begin, end in zip(box.begin, box.end, strict=True))
        try:
            data: np.ndarray = result_of(self.view[..., z, y, x].read(), self.location, DATA_WAIT)
        except (ValueError, OSError) as error:
            self._raise_unreadable(error)
        return data

    def write(self, box: Box, data: np.ndarray) -> None:
        """Store a box of whole shards, each in one piece, flushed to the disk.

        Raises:
            StorageUnavailable: the server does not answer.
            UserError: the disk is full or not writable; the system's error is its cause.
            ValueError: the box cuts a shard, which another process might be writing.
        """
        for begin, end, shard, extent in zip(box.begin, box.end, self.shards[-3:], self.shape[-3:], strict=True):
            if begin % shard or (end % shard and end != extent):
                raise ValueError(f"voxels {tuple(box.begin)} to {tuple(box.end)} are not whole shards of {self.shards}")
        values = np.ascontiguousarray(data, dtype=self.dtype)
        z, y, x = box.slices
        writing = self.view[..., z, y, x].write(values, can_reference_source_data_indefinitely=True)
        wait(writing, self.location, DATA_WAIT, "written")

    def key(self, position: Sequence[int]) -> str:
        """The name of a shard in the array's folder: `c/0/1/2`, or in format 2 `0.1.2`."""
        place = [*[0] * (self.ndim - 3), *position]
        return "/".join(["c", *map(str, place)]) if self.format == 3 else ".".join(map(str, place))

    def file(self, position: Sequence[int]) -> Path:
        """The file of a shard on this machine, whether it is there or not.

        Args:
            position: of the shard along z, y, x.
        """
        return self.folder / self.key(position)

    def exist(self, positions: Iterable[Sequence[int]]) -> list[bool]:
        """Whether there is a file of each of some shards.

        Args:
            positions: along z, y, x.

        Raises:
            StorageUnavailable: the server does not answer.
        """
        return exists(self.location, [self.key(position) for position in positions])

    def delete(self, positions: Iterable[Sequence[int]]) -> None:
        """Delete shards, those that are there: their voxels are zeros from then on.

        Args:
            positions: along z, y, x.

        Raises:
            StorageUnavailable: the server does not answer.
            UserError: the system refuses.
        """
        remove_files(self.location, [self.key(position) for position in positions])

    def shards_in(self, box: Box) -> Iterator[tuple[Coordinate, Box]]:
        """Positions of the shards that share voxels with a box, and the voxels that they share."""
        size = Coordinate(self.shards[-3:])
        for position in cells_of(box, size):
            begin = Coordinate(position) * size
            yield Coordinate(position), Box(begin, begin + size).intersect(box)

    def shard_box(self, position: Sequence[int]) -> Box:
        """The voxels of a shard, cropped to the array."""
        size = Coordinate(self.shards[-3:])
        begin = Coordinate(position) * size
        return Box(begin, begin + size).intersect(Box.of_shape(Coordinate(self.shape[-3:])))

    def present(self) -> np.ndarray:
        """(z, y, x) bool over the shards: whether there is a file. Names are listed, nothing is opened."""
        found = np.zeros(self.grid_shape, dtype=bool)
        for position in self._stored_positions():
            if all(0 <= index < extent for index, extent in zip(position, self.grid_shape, strict=True)):
                found[position] = True
        return found

    def sizes(self, most: int) -> list[int]:
        """Bytes of some of the shards that are there, at most so many; of buckets, none: they list names alone."""
        if not self.location.is_local:
            return []
        return [self.file(position).stat().st_size for position in itertools.islice(self._stored_positions(), most)]

    @property
    def called(self) -> str:
        """What a file of it is called in messages."""
        return "shard" if self.format == 3 else "chunk"

    def _stored_positions(self) -> Iterator[tuple[int, ...]]:
        if not self.location.is_local:
            for key in list_keys(self.location):
                yield from _position(key.removeprefix("c/").split("/"), self.ndim)
            return
        if self.format == 2:
            for name in _names(self.folder):
                yield from _position(name.split("."), self.ndim)
            return
        folders = [self.folder / "c"]
        for _ in range(self.ndim - 1):
            folders = [folder / name for folder in folders for name in _names(folder) if name.isdigit()]
        for folder in folders:
            for name in _names(folder):
                yield from _position([*folder.relative_to(self.folder / "c").parts, name], self.ndim)

    def _raise_unreadable(self, error: Exception) -> None:
        """Say which file cannot be read, and why."""
        if not tells_of_content(error):
            raise_explained(error, self.location, "read")
        found = _FILE.search(str(error))
        inside = os.path.relpath(found.group(1), self.location.path) if found else ""
        what = f"{self.called} {inside}" if inside and not inside.startswith("..") else f"a {self.called}"
        why = plain_text(error).rpartition('": ')[2]
        raise UserError(f"{what} is truncated or damaged ({why})", self.location.name) from error


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def _position(parts: Sequence[str], dimensions: int) -> Iterator[tuple[int, ...]]:
    """The position along z, y, x that a file's name states, if it does."""
    if len(parts) == dimensions and all(part.isdigit() for part in parts):
        yield tuple(int(part) for part in parts[-3:])


def open_stored(
    location: Location,
    storage_format: StorageFormat,
    metadata: Mapping[str, Any],
    attributes: Mapping[str, Any],
    mode: str,
) -> StoredArray:
    """Open an array.

    Args:
        location: of the array.
        storage_format: in which it is.
        metadata: its own, of `.zarray` or `zarr.json`.
        attributes: what is noted about it.
        mode: `r` to read, `r+` to write as well.

    Raises:
        UserError: the metadata or the codec are not understood.
    """
    writable = mode != "r"
    spec: dict[str, Any] = {"driver": DRIVERS[f"zarr{storage_format}"], "kvstore": kvstore_spec(location)}
    if writable:
        spec["store_data_equal_to_fill_value"] = True
    try:
        opening = ts.open(spec, context=context(), open=True, read=True, write=writable)
    except ValueError as error:
        raise_explained(error, location, "opened")
    view = wait(opening, location, METADATA_WAIT, "opened")
    grid = metadata["chunk_grid"]["configuration"]["chunk_shape"] if storage_format == 3 else metadata["chunks"]
    return StoredArray(location, view, storage_format, tuple(map(int, grid)), dict(attributes))


def create_stored(
    location: Location,
    storage_format: StorageFormat,
    shape: Sequence[int],
    dtype: Any,
    shard: Sequence[int],
    attributes: Mapping[str, Any],
) -> StoredArray:
    """Create an empty array where there is none.

    Args:
        location: of the array.
        storage_format: 2 or 3.
        shape: (z, y, x) or (k, z, y, x) in voxels.
        dtype: numpy dtype.
        shard: voxels along z, y, x of a file.
        attributes: to store; those of format 2 are written by the caller, into a file of their own.

    Raises:
        UserError: the folder cannot be written.
    """
    extents = (*map(int, shape[:-3]), *(int(min(s, e)) for s, e in zip(shard, shape[-3:], strict=True)))
    if storage_format == 3:
        metadata = {**_zarr3_metadata(shape, np.dtype(dtype), extents), "attributes": dict(attributes)}
    else:
        metadata = _zarr2_metadata(shape, np.dtype(dtype), extents)
    spec = {
        "driver": DRIVERS[f"zarr{storage_format}"],
        "kvstore": kvstore_spec(location),
        "metadata": metadata,
        "store_data_equal_to_fill_value": True,
    }
    try:
        creating = ts.open(spec, context=context(), create=True, delete_existing=storage_format == 3)
    except ValueError as error:
        raise_explained(error, location, "written")
    view = wait(creating, location, METADATA_WAIT, "written")
    return StoredArray(location, view, storage_format, extents, dict(attributes))


def _zarr3_metadata(shape: Sequence[int], dtype: np.dtype, extents: tuple[int, ...]) -> dict[str, Any]:
    channels = extents[:-3]
    return {
        "shape": list(map(int, shape)),
        "data_type": dtype.name,
        "fill_value": 0,
        "dimension_names": ["c"] * len(channels) + list(SPATIAL_AXES),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(extents)}},
        "codecs": zarr3_codecs(dtype, [*channels, *chunk_inside(extents[-3:])], list(extents)),
    }


def _zarr2_metadata(shape: Sequence[int], dtype: np.dtype, extents: tuple[int, ...]) -> dict[str, Any]:
    return {
        "zarr_format": 2,
        "shape": list(map(int, shape)),
        "chunks": list(extents),
        "dtype": dtype.newbyteorder("<").str,
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "dimension_separator": ".",
        "compressor": {"id": "blosc", **compressor_of(dtype), "blocksize": 0},
    }
