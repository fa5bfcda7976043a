"""Which files of chunks a box of voxels touches, and which of them are missing.

Missing chunks are read as the fill value without a word, as their formats want it. Whoever wrote an array, and so knows
that every chunk of a box must be there, asks here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from functools import cached_property

from funlib.geometry import Coordinate

from .axes import AxisChoice
from .boxes import Box
from .dialects.precomputed import scale_of
from .formats import Node
from .storage import exists

_RANGES = re.compile(r"^(-?\d+)-\d+_(-?\d+)-\d+_(-?\d+)-\d+$")
"""The name of a chunk of a precomputed volume."""


def touched_keys(node: Node, choice: AxisChoice, shape: Sequence[int], box: Box, level: int | str = 0) -> list[str]:
    """Names, in the array's folder, of the files that hold the voxels of a box: chunks, or shards of chunks.

    Args:
        node: an array of zarr, N5 or precomputed.
        choice: how its axes are read.
        shape: stored, in C order.
        box: of voxels, order z, y, x.
        level: of a precomputed volume.

    Raises:
        ValueError: the files are not named by positions (sharded precomputed).
    """
    bounds = [(0, extent) for extent in shape]
    for axis, index in choice.fixed.items():
        bounds[axis] = (index, index + 1)
    for axis, begin, end in zip(choice.order, box.begin, box.end, strict=True):
        bounds[axis] = (begin, end)
    if node.format == "precomputed":
        return list(_precomputed_keys(node, level, bounds))
    sizes, prefix, separator, reverse = _grid(node)
    cells = [range(b // size, -(-e // size)) for (b, e), size in zip(bounds, sizes, strict=True)]
    positions = itertools.product(*cells)
    return [
        separator.join([*prefix, *map(str, position[::-1] if reverse else position)]) or "0" for position in positions
    ]


def missing_keys(node: Node, choice: AxisChoice, shape: Sequence[int], box: Box, level: int | str = 0) -> list[str]:
    """Those of the files that are not there.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: access is denied.
        ValueError: see `touched_keys`.
    """
    keys = touched_keys(node, choice, shape, box, level)
    return [key for key, found in zip(keys, exists(node.location, keys), strict=True) if not found]


def _grid(node: Node) -> tuple[list[int], list[str], str, bool]:
    """Extents of a file in C order, what names begin with, what separates positions, and whether x comes first."""
    metadata = node.metadata
    if node.format == "n5":
        return list(metadata["blockSize"])[::-1], [], "/", True
    if node.format == "zarr2":
        return list(metadata["chunks"]), [], str(metadata.get("dimension_separator", ".")), False
    encoding = metadata.get("chunk_key_encoding", {})
    by_default = encoding.get("name", "default") == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if by_default else ".")
    sizes = list(metadata["chunk_grid"]["configuration"]["chunk_shape"])
    return sizes, ["c"] if by_default else [], separator, False


def _precomputed_keys(node: Node, level: int | str, bounds: Sequence[tuple[int, int]]) -> Iterator[str]:
    scale = scale_of(node.metadata, level, node.name)[1]
    if scale.get("sharding"):
        raise ValueError(f"{node.name} is sharded by hashes: its files are not named by positions")
    parts = []
    offset = scale.get("voxel_offset", (0, 0, 0))
    for (begin, end), size, first, extent in zip(
        bounds[:0:-1], scale["chunk_sizes"][0], offset, scale["size"], strict=True
    ):
        cells = range(begin // size, -(-end // size))
        parts.append([f"{first + c * size}-{first + min((c + 1) * size, extent)}" for c in cells])
    for ranges in itertools.product(*parts):
        yield f"{scale['key']}/{'_'.join(ranges)}"


class ChunkNames:
    """The files of an array by their position along z, y, x.

    Args:
        node: an array of zarr, N5 or precomputed.
        choice: how its axes are read; channels that are all kept are not told apart.
        shape: stored, in C order.
        level: of a precomputed volume.

    Raises:
        ValueError: the files are not named by positions (sharded precomputed).
    """

    def __init__(self, node: Node, choice: AxisChoice, shape: Sequence[int], level: int | str = 0) -> None:
        self._node, self._choice, self._shape, self._level = node, choice, tuple(shape), level
        if node.format == "precomputed":
            scale = scale_of(node.metadata, level, node.name)[1]
            if scale.get("sharding"):
                raise ValueError(f"{node.name} is sharded by hashes: its files are not named by positions")
            self._sizes = [1, *list(scale["chunk_sizes"][0])[::-1]][-len(self._shape) :]
        else:
            self._sizes = _grid(node)[0]
        if len(self._sizes) != len(self._shape):
            raise ValueError(f"{node.name} has other axes than are read")

    @cached_property
    def extent(self) -> Coordinate:
        """Voxels of a file along z, y, x."""
        return Coordinate(int(self._sizes[axis]) for axis in self._choice.order)

    @cached_property
    def grid(self) -> tuple[int, int, int]:
        """Files along z, y, x."""
        z, y, x = (-(-self._shape[axis] // int(self._sizes[axis])) for axis in self._choice.order)
        return z, y, x

    @property
    def count(self) -> int:
        """Files in all."""
        z, y, x = self.grid
        return z * y * x

    def name(self, position: Sequence[int]) -> str:
        """The name of a file, in the array's folder."""
        begin = Coordinate(position) * self.extent
        box = Box(begin, begin + Coordinate(1, 1, 1))
        return touched_keys(self._node, self._choice, self._shape, box, self._level)[0]

    def missing(self, positions: Sequence[Sequence[int]]) -> list[str]:
        """Names of those of some files that are not there.

        Raises:
            StorageUnavailable: the server does not answer.
            UserError: access is denied.
        """
        names = [self.name(position) for position in positions]
        return [name for name, there in zip(names, exists(self._node.location, names), strict=True) if not there]

    def position(self, name: str) -> tuple[int, int, int] | None:
        """The position of a file by its name; None if it is none of the files that are read."""
        stored = self._stored_position(name)
        if stored is None or len(stored) != len(self._shape):
            return None
        for axis, index in self._choice.fixed.items():
            if stored[axis] != index // self._sizes[axis]:
                return None
        z, y, x = (stored[axis] for axis in self._choice.order)
        inside = all(index < extent for index, extent in zip((z, y, x), self.grid, strict=True))
        return (z, y, x) if inside else None

    def prefixes(self) -> Iterator[str]:
        """What the names begin with: one for each position along the axis that they name first."""
        if self._node.format == "precomputed":
            for x in range(self.grid[2]):
                folder, _, file = self.name((0, 0, x)).rpartition("/")
                yield f"{folder}/{file.partition('_')[0]}_"
            return
        _, prefix, separator, reverse = _grid(self._node)
        axis = len(self._shape) - 1 if reverse else 0
        count = -(-self._shape[axis] // int(self._sizes[axis]))
        head = "".join(f"{part}{separator}" for part in prefix)
        yield from (f"{head}{index}{separator}" for index in range(count))

    def _stored_position(self, name: str) -> tuple[int, ...] | None:
        """The position along the stored axes."""
        if self._node.format == "precomputed":
            return self._precomputed_position(name)
        _, prefix, separator, reverse = _grid(self._node)
        parts = name.split(separator)
        if parts[: len(prefix)] != prefix:
            return None
        parts = parts[len(prefix) :]
        if not all(part.isdecimal() for part in parts):
            return None
        position = tuple(int(part) for part in parts)
        return position[::-1] if reverse else position

    def _precomputed_position(self, name: str) -> tuple[int, ...] | None:
        scale = scale_of(self._node.metadata, self._level, self._node.name)[1]
        folder, _, file = name.rpartition("/")
        found = _RANGES.match(file)
        if folder != scale["key"] or found is None:
            return None
        begin, first = found.groups()[::-1], list(scale.get("voxel_offset", (0, 0, 0)))[::-1]
        cells = [(int(b) - f) // size for b, f, size in zip(begin, first, self._sizes[-3:], strict=True)]
        return (*[0] * (len(self._shape) - 3), *cells)
