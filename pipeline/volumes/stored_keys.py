"""Which files of chunks a box of voxels touches, and which of them are missing.

Missing chunks are read as the fill value without a word, as their formats want it. Whoever wrote an array, and so knows
that every chunk of a box must be there, asks here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from .axes import AxisChoice
from .boxes import Box
from .dialects.precomputed import scale_of
from .formats import Node
from .storage import exists


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
