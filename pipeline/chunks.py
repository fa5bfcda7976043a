"""Chunks of zarr arrays on disk: truncated ones are refused, and only the sections that are wanted are decoded.

A block with context needs a few sections of the chunks above and below it. Blosc packs a chunk in small pieces, each of
which can be decoded alone, so that these cost what they hold and not what the chunk holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import zarr

NEARLY_ALL = 0.75
"""Of the sections of a chunk: from here on it is faster to decode the chunk in one go."""


class CheckedStore(zarr.DirectoryStore):
    """A zarr directory that refuses truncated chunks.

    Blosc decompresses a chunk that lost its end into whatever lies in memory, without a word. Its header knows the
    length, so a read of such a chunk raises a `ValueError` that names it.
    """

    def __getitem__(self, key: str) -> bytes:
        value: bytes = super().__getitem__(key)
        if not key.rpartition("/")[2].startswith(".z") and len(value) != max(16, blosc_length(value)):
            raise ValueError(f"chunk {key} is truncated")
        return value

    def chunk(self, key: str) -> bytes | None:
        """A chunk as it is stored; None if there is none, which stands for zeros.

        Raises:
            ValueError: it is truncated.
        """
        try:
            return self[key]
        except KeyError:
            return None


def blosc_length(chunk: bytes) -> int:
    """Bytes that a Blosc chunk has according to its header."""
    return int.from_bytes(chunk[12:16], "little")


def read_region(array: zarr.Array, begin: Sequence[int], end: Sequence[int]) -> np.ndarray:
    """The voxels of a box, of all channels; as zarr reads them, but sections that the box leaves out are not decoded.

    Args:
        array: of a `CheckedStore`, axes (z, y, x) or (k, z, y, x), compressed with Blosc, in C order; a channel axis is
            not divided into chunks.
        begin, end: first voxel, and one past the last, along z, y, x; inside the array.

    Raises:
        ValueError: a chunk is truncated.
        RuntimeError: a chunk cannot be decoded.
    """
    shape = (max(0, high - low) for low, high in zip(begin, end, strict=True))
    data = np.empty((*array.shape[:-3], *shape), array.dtype)
    for position in itertools.product(*_chunk_ranges(array, begin, end)):
        there: list[slice] = []
        here: list[slice] = []
        for index, size, low, high in zip(position, array.chunks[-3:], begin, end, strict=True):
            first, last = max(low, index * size), min(high, (index + 1) * size)
            there.append(slice(first - index * size, last - index * size))
            here.append(slice(first - low, last - low))
        encoded = array.store.chunk(_key(array, position))
        z, y, x = here
        data[..., z, y, x] = 0 if encoded is None else _decoded(array, encoded, *there)
    return data


def _chunk_ranges(array: zarr.Array, begin: Sequence[int], end: Sequence[int]) -> Iterator[range]:
    for low, high, size in zip(begin, end, array.chunks[-3:], strict=True):
        yield range(low // size, -(-high // size) if high > low else low // size)


def _key(array: zarr.Array, position: Sequence[int]) -> str:
    indices = [0] * (array.ndim - 3) + list(position)
    return f"{array.path}/{'.'.join(map(str, indices))}"


def _decoded(array: zarr.Array, encoded: bytes, z: slice, y: slice, x: slice) -> np.ndarray:
    """Some voxels of a chunk, counted from its first one."""
    *channels, depth, height, width = array.chunks
    wanted = z.stop - z.start
    if wanted >= NEARLY_ALL * depth:
        whole: np.ndarray = np.frombuffer(array.compressor.decode(encoded), array.dtype).reshape(array.chunks)
        return whole[..., z, y, x]
    sections = np.empty((*channels, wanted, height, width), array.dtype)
    for channel, out in enumerate(sections.reshape(-1, wanted * height * width)):
        array.compressor.decode_partial(encoded, (channel * depth + z.start) * height * width, len(out), out=out)
    return sections[..., y, x]
