"""Counting the contacts between fragments in one pass: a hash table of the pairs that touch.

table = rows (u, v, count, affinity_sum), free ones with count 0
for every channel, and every voxel p with a partner at the channel's offset:
    u, v = the ids of the two fragments, the smaller first; next voxel if they are equal or one of them is 0
    if (u, v) is not the pair of the last contact:
        slot = hash(u, v); while slot is taken by another pair: slot = slot + 1
    count[slot] += 1
    affinity_sum[slot] += affinity, in whole multiples of 2**-26
    if more than half of the rows are used: enter all of them into a table of twice the size
edges = used rows, sorted by u, v
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..hashing import GOLDEN
from .compiled import compiled

RESOLUTION = 2.0**-26
"""Affinities enter the sums as multiples of this."""

_FIRST_SLOTS = 1 << 12
_MULTIPLIER: np.uint64 = GOLDEN
_U, _V, _COUNT, _SUM = 0, 1, 2, 3


def count_contacts(
    affinities: np.ndarray, fragments: np.ndarray, places: Sequence[tuple[tuple[slice, ...], tuple[slice, ...]]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number and affinity of the contacts of all pairs of fragments that touch.

    Args:
        affinities: (k, z, y, x), float in [0, 1] or uint8 (255 = certain).
        fragments: (z, y, x) uint64; 0 is no fragment.
        places: per channel, indices of the first and of the second voxels of its voxel pairs.

    Returns:
        The smaller and the larger id, (E, 2) uint64, sorted; contacts, (E,) int64; the sum of their affinities, each
        rounded to a multiple of `RESOLUTION`, (E,) float64.
    """
    whole = 255.0 if affinities.dtype == np.uint8 else 1.0
    if affinities.dtype != np.uint8:
        affinities = affinities.astype(np.float64, copy=False)
    table, used = np.zeros((_FIRST_SLOTS, 4), np.uint64), 0
    for channel, (here, there) in zip(affinities, places, strict=True):
        table, used = _add_contacts(table, used, fragments[here], fragments[there], channel[here], whole)
    pairs = table[table[:, _COUNT] > 0]
    pairs = pairs[np.lexsort((pairs[:, _V], pairs[:, _U]))]
    return pairs[:, :2], pairs[:, _COUNT].astype(np.int64), pairs[:, _SUM] * RESOLUTION


@compiled
def _add_contacts(
    table: np.ndarray, used: int, first: np.ndarray, second: np.ndarray, affinities: np.ndarray, whole: float
) -> tuple[np.ndarray, int]:
    """Enter the contacts between voxels of two arrays; the table, or a larger one, and how many rows it has."""
    slot = 0
    for z in range(first.shape[0]):
        for y in range(first.shape[1]):
            for x in range(first.shape[2]):
                one, other = first[z, y, x], second[z, y, x]
                if one == other or one == 0 or other == 0:
                    continue
                u, v = min(one, other), max(one, other)
                if table[slot, _U] != u or table[slot, _V] != v:  # most contacts are of the same pair as the last
                    slot = _slot(table, u, v)
                    if table[slot, _COUNT] == 0:
                        table[slot, _U], table[slot, _V] = u, v
                        used += 1
                table[slot, _COUNT] += np.uint64(1)
                table[slot, _SUM] += np.uint64(np.rint(affinities[z, y, x] / whole / RESOLUTION))
                if 2 * used > len(table):
                    table = _enlarged(table)
                    slot = _slot(table, u, v)
    return table, used


@compiled
def _slot(table: np.ndarray, u: np.uint64, v: np.uint64) -> int:
    """The row of a pair, or the free one where it belongs."""
    mask = len(table) - 1
    mixed = (u * _MULTIPLIER) ^ v
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _MULTIPLIER
    slot = int(mixed >> np.uint64(32)) & mask
    while table[slot, _COUNT] != 0 and (table[slot, _U] != u or table[slot, _V] != v):
        slot = (slot + 1) & mask
    return slot


@compiled
def _enlarged(table: np.ndarray) -> np.ndarray:
    """The same pairs with twice the room."""
    larger = np.zeros((2 * len(table), 4), np.uint64)
    for row in table:
        if row[_COUNT] != 0:
            larger[_slot(larger, row[_U], row[_V])] = row
    return larger
