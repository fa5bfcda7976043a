"""neuroglancer's sharded files: many small values by uint64 ids, in few files with an index each.

Format: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/sharded.md
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MINISHARD_BITS = 6


@dataclass(frozen=True)
class Sharding:
    """How ids are divided into files, by their hash.

    Attributes:
        shard_bits: there are two to the power of this many files.
    """

    shard_bits: int

    @property
    def document(self) -> dict[str, Any]:
        """As `info` states it."""
        return {
            "@type": "neuroglancer_uint64_sharded_v1",
            "preshift_bits": 0,
            "hash": "murmurhash3_x86_128",
            "minishard_bits": MINISHARD_BITS,
            "shard_bits": self.shard_bits,
            "minishard_index_encoding": "gzip",
            "data_encoding": "raw",
        }

    def shards_of(self, ids: np.ndarray) -> np.ndarray:
        """The file of each id.

        Args:
            ids: (N,) uint64.
        """
        shards: np.ndarray = (murmurhash(ids) >> np.uint64(MINISHARD_BITS)) & np.uint64(2**self.shard_bits - 1)
        return shards

    def file_name(self, shard: int) -> str:
        """What a file is called."""
        digits = -(-self.shard_bits // 4)
        return f"{shard:0{digits}x}.shard" if digits else "0.shard"

    def file_content(self, values: Mapping[int, tuple[bytes, bytes]]) -> bytes:
        """A file.

        Args:
            values: by id, what lies before the value, unknown to the index, and the value itself.
        """
        ids = np.array(sorted(values), np.uint64)
        minishards = murmurhash(ids) & np.uint64(2**MINISHARD_BITS - 1)
        data, indices = bytearray(), []
        for minishard in range(2**MINISHARD_BITS):
            members = ids[minishards == minishard].tolist()
            rows = np.zeros((3, len(members)), "<u8")
            last_id, last_end = 0, 0
            for column, member in enumerate(members):
                before, value = values[member]
                begin = len(data) + len(before)
                data += before + value
                rows[:, column] = member - last_id, begin - last_end, len(value)
                last_id, last_end = member, len(data)
            indices.append(gzip.compress(rows.tobytes(), mtime=0) if members else b"")
        table = np.zeros((2**MINISHARD_BITS, 2), "<u8")
        for minishard, index in enumerate(indices):
            table[minishard] = len(data), len(data) + len(index)
            data += index
        return table.tobytes() + bytes(data)


def murmurhash(ids: np.ndarray) -> np.ndarray:
    """The low 64 bits of MurmurHash3_x86_128 (Appleby, 2011; seed 0) of ids as 8 bytes, little endian.

    Args:
        ids: (N,) uint64.

    Returns:
        (N,) uint64.
    """
    mask = np.uint64(0xFFFFFFFF)

    def times(values: np.ndarray, factor: int) -> np.ndarray:
        product: np.ndarray = (values * np.uint64(factor)) & mask
        return product

    def rotated(values: np.ndarray, bits: int) -> np.ndarray:
        turned: np.ndarray = ((values << np.uint64(bits)) | (values >> np.uint64(32 - bits))) & mask
        return turned

    def mixed(values: np.ndarray) -> np.ndarray:
        values = times(values ^ (values >> np.uint64(16)), 0x85EBCA6B)
        values = times(values ^ (values >> np.uint64(13)), 0xC2B2AE35)
        folded: np.ndarray = values ^ (values >> np.uint64(16))
        return folded

    ids = np.asarray(ids, np.uint64)
    length = np.uint64(8)
    first = times(rotated(times(ids & mask, 0x239B961B), 15), 0xAB0E9789) ^ length
    second = times(rotated(times(ids >> np.uint64(32), 0xAB0E9789), 16), 0x38B34AE5) ^ length
    others = np.full_like(ids, length)
    first = (first + second + others + others) & mask
    second, others = (second + first) & mask, (others + first) & mask
    first, second, others = mixed(first), mixed(second), mixed(others)
    first = (first + second + others + others) & mask
    second = (second + first) & mask
    hashed: np.ndarray = first | (second << np.uint64(32))
    return hashed
