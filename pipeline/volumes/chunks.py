"""Chunks of zarr arrays on disk: truncated ones are refused, and only the sections that are wanted are decoded.

A block with context needs a few sections of the chunks above and below it. Blosc packs a chunk in small pieces, each of
which can be decoded alone, so that these cost what they hold and not what the chunk holds.
"""

from __future__ import annotations

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


def decoded(array: zarr.Array, encoded: bytes, z: slice, y: slice, x: slice) -> np.ndarray:
    """Some voxels of a chunk, all channels; sections that are left out are not decoded.

    Args:
        array: compressed with Blosc, in C order; chunks (z, y, x) or (k, z, y, x).
        encoded: the chunk.
        z, y, x: which voxels, counted from its first one.

    Raises:
        RuntimeError: it cannot be decoded.
    """
    *channels, depth, height, width = array.chunks
    wanted = z.stop - z.start
    if wanted >= NEARLY_ALL * depth:
        whole: np.ndarray = np.frombuffer(array.compressor.decode(encoded), array.dtype).reshape(array.chunks)
        return whole[..., z, y, x]
    sections = np.empty((*channels, wanted, height, width), array.dtype)
    for channel, out in enumerate(sections.reshape(-1, wanted * height * width)):
        array.compressor.decode_partial(encoded, (channel * depth + z.start) * height * width, len(out), out=out)
    return sections[..., y, x]
