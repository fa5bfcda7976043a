"""Which chunks of a volume that is read where it lies were there when a run began to use it, and readers that mind.

A chunk that is not there is read as the fill value, as zarr, N5 and precomputed want it: sparse volumes leave chunks
out. So a chunk that was lost would be zeros, too, without a word. The chunks that are there at first use are listed
once; whoever meets one of them missing later gets an error. One that was missing then is empty.
"""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from ..errors import UserError
from .boxes import Box, cells_of
from .links import OwnFilesArray
from .locations import Location
from .storage import list_range
from .stored_keys import ChunkNames
from .tensors import TensorArray
from .volume import Volume


def chunk_names(volume: Volume) -> ChunkNames | None:
    """How the files of a volume are called; None if they are not named by positions (sharded precomputed)."""
    level = volume.found.level if volume.found.level is not None else 0
    try:
        return ChunkNames(volume.found.array, volume.choice, volume.stored_shape, level)
    except ValueError:
        return None


def present_chunks(volume: Volume, most: int) -> np.ndarray | None:
    """Which files of a volume are there.

    Args:
        volume: read in place.
        most: files that it may have at most; of larger ones, nothing is listed.

    Returns:
        (z, y, x) bool over its files (chunks, or shards of chunks); None if they cannot be listed: they are too many,
        behind a web server, or named by hashes.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: access is denied.
    """
    names = chunk_names(volume)
    location = volume.found.array.location
    if names is None or names.count > most or location.scheme in ("http", "https"):
        return None
    present = np.zeros(names.grid, dtype=bool)
    for name in _stored_names(location, names):
        position = names.position(name)
        if position is not None:
            present[position] = True
    return present


def _stored_names(location: Location, names: ChunkNames) -> Iterator[str]:
    """Names of everything in the folder of an array, and perhaps of more; of a bucket one range after another."""
    if location.is_local:
        yield from _local_names(location.file, "")
        return
    for prefix in names.prefixes():
        yield from list_range(location, prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))


def _local_names(folder: Path | str, inside: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _local_names(entry.path, f"{inside}{entry.name}/")
            else:
                yield f"{inside}{entry.name}"


def as_json(present: np.ndarray) -> dict[str, Any]:
    """A list of chunks for a JSON file: a bit per chunk, compressed; a run of chunks that are all there costs nothing.

    Args:
        present: (z, y, x) bool.
    """
    bits = base64.b64encode(zlib.compress(np.packbits(present).tobytes(), 9)).decode("ascii")
    return {"grid": list(present.shape), "there": int(present.sum()), "bits": bits}


def from_json(document: Mapping[str, Any]) -> np.ndarray:
    """The list that `as_json` made, (z, y, x) bool.

    Raises:
        ValueError: it is damaged.
    """
    try:
        grid = tuple(int(extent) for extent in document["grid"])
        packed = np.frombuffer(zlib.decompress(base64.b64decode(document["bits"], validate=True)), np.uint8)
        present = np.unpackbits(packed, count=int(np.prod(grid))).astype(bool).reshape(grid)
    except (KeyError, TypeError, ValueError, OverflowError, zlib.error) as error:
        raise ValueError(f"the list of chunks is damaged ({error})") from error
    if len(packed) != -(-present.size // 8) or int(present.sum()) != document.get("there"):
        raise ValueError("the list of chunks is damaged")
    return present


def lost_chunks(volume: Volume, before: np.ndarray, now: np.ndarray) -> list[str]:
    """Names of the files that were there and are not any more, in the order of positions."""
    names = chunk_names(volume)
    if names is None or before.shape != now.shape:
        return []
    return [names.name(tuple(position)) for position in np.argwhere(before & ~now).tolist()]


@dataclass(frozen=True)
class WatchedVolume(Volume):
    """A volume in which a chunk that was there when the run began to use it must still be there.

    Attributes:
        present: (z, y, x) bool over its files, see `present_chunks`.
        cure: what to do about a lost chunk, for messages.
    """

    present: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=bool))
    cure: str = ""

    @cached_property
    def _names(self) -> ChunkNames:
        names = chunk_names(self)
        if names is None or names.grid != self.present.shape:
            raise UserError(f"its chunks are others than when the run began to use it; {self.cure}", self.name)
        return names

    @cached_property
    def _fill(self) -> float:
        array = self.array.array if isinstance(self.array, OwnFilesArray) else self.array
        assert isinstance(array, TensorArray), "only arrays of chunks are watched"
        return array.fill_value

    @override
    def read(self, box: Box) -> np.ndarray:
        data = super().read(box)
        doubtful = [position for position, part in self._parts(data, box) if _is_all(part, self._fill)]
        lost = self._names.missing([position for position in doubtful if self.present[position]]) if doubtful else []
        if lost:
            raise UserError(
                f"chunk {lost[0]} is lost, which was there when the run began to use it; {self.cure}", self.name
            )
        return data

    def _parts(self, data: np.ndarray, box: Box) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """The voxels of a box, file by file: the position of each, and what was read of it."""
        extent = tuple(map(int, self._names.extent))
        begin, end = tuple(map(int, box.begin)), tuple(map(int, box.end))
        for position in cells_of(box, extent):
            z, y, x = (
                slice(max(cell * size - first, 0), min((cell + 1) * size, last) - first)
                for cell, size, first, last in zip(position, extent, begin, end, strict=True)
            )
            yield position, data[..., z, y, x]


def _is_all(values: np.ndarray, value: float) -> bool:
    """Whether all values are a value, which may be NaN; the first one mostly decides."""
    if not values.size:
        return False
    first = values.flat[0]
    if first != value and not (first != first and value != value):
        return False
    return bool(np.isnan(values).all() if value != value else (values == value).all())
