"""A seeded watershed on exact heights, from the highest voxel down.

It answers as a priority queue would that holds all reached voxels, ordered by height and then by when they were
reached. But one queue of millions of voxels spends its time waiting for memory. Here, voxels wait at their level, one
of thousands of narrow ranges of height, in the order in which they were reached; only when the water stands at a level,
those of its voxels that have somewhere to go are sorted. The few that are reached later and lie no lower than the water
wait in a small heap.

    for every cell with a label and a free neighbour: append it to waiting[level of its height]
    for level, from the highest to the lowest:
        keys = the cells of waiting[level] that still have a free neighbour, by falling height, then in order of arrival
        while there are keys, or late cells:
            cell = the first key, or the first late cell if that is higher
            for reached in the free neighbours of cell:
                label of reached = label of cell
                if reached lies on a lower level: append it to waiting[that level]
                else: put it into the heap late, by falling height, then in order of arrival

Where some faces of voxels are closed, water first goes as far as it can through the open ones. What it cannot reach so
lies in boundaries, where height says little: it is given to whatever is nearest, breadth first.

Whether a cell has a free neighbour behind an open face stands in one byte of the cell, its *ways*: whoever takes a cell
clears the ways of its neighbours to it. To ask the neighbours themselves, again and again, would take twice the time:
ways fit into a processor's cache, where labels and heights do not. Cells are counted through, without a border around
the volume: the ways out of it are closed, and those that are cleared beyond an end belong to cells at another end,
where they are closed as well; one section before the first and after the last is there for that alone.

Places in arrays are unsigned numbers here: of a signed one, compiled code asks each time whether it counts from the
end, which takes a quarter of the time.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled
from .faces import ALL_FACES, HIGH_X, HIGH_Y, HIGH_Z, IN_SECTION, LOW_X, LOW_Y, LOW_Z

_CELLS_PER_LEVEL = 64
_MOST_LEVELS = 1 << 13
_LOWEST = np.uint64(2**32 - 1)
_ONE = np.uint64(1)
_DIGITS = 256
"""Values that a level is first sorted by."""
_FEW = 24
"""Keys that insertion sorts at once."""
_SHIFTS = 16
"""Shifts per key after which insertion gives up."""


def flood(
    heights: np.ndarray, seeds: np.ndarray, faces: np.ndarray | None = None, *, sections_first: bool = False
) -> np.ndarray:
    """Give every voxel to the seed whose water reaches it first.

    Water spreads through open faces of voxels and always from the highest voxel reached, of equally high ones from the
    one that was reached first; seeds were reached in scan order. Within narrow ranges of height nothing is rounded. Of
    the voxels that are left then, each is given to the nearest one with water, counted in steps through any faces.

    Args:
        heights: (z, y, x) float32, not negative.
        seeds: (z, y, x) integers, 1 … n in seeds and 0 elsewhere.
        faces: (z, y, x) uint8, the open faces of each voxel (see `open_faces`). Default: all faces are open.
        sections_first: the nearest voxel with water is sought in the same section first (anisotropic voxels).

    Returns:
        (z, y, x) int32. Without seeds, all 0.
    """
    labels = np.array(seeds, np.int32, order="C")
    del seeds  # frees memory if nobody else holds them
    flat, heights = labels.reshape(-1), np.ascontiguousarray(heights).reshape(-1)
    section, row = np.uint64(labels.shape[1] * labels.shape[2]), np.uint64(labels.shape[2])
    levels = max(1, min(_MOST_LEVELS, len(flat) // _CELLS_PER_LEVEL))
    ways = _ways(labels.shape, ALL_FACES if faces is None else faces)
    _spread(flat, heights, heights.view(np.uint32), np.flatnonzero(flat), ways, levels, section, row)
    if faces is not None:
        for opened in (IN_SECTION, ALL_FACES) if sections_first else (ALL_FACES,):
            if flat.all():
                break
            _give_to_nearest(flat, _ways(labels.shape, opened), section, row)
    return labels


def _ways(shape: tuple[int, ...], faces: np.ndarray | int) -> np.ndarray:
    """Open faces, those at the ends of the volume closed; (n,) uint8, with a section of nothing before and after."""
    section = shape[1] * shape[2]
    ways = np.zeros((shape[0] + 2) * section, np.uint8)
    inside = ways[section : len(ways) - section].reshape(shape)
    inside[:] = faces
    for axis, (low, high) in enumerate(((LOW_Z, HIGH_Z), (LOW_Y, HIGH_Y), (LOW_X, HIGH_X))):
        ends = np.moveaxis(inside, axis, 0)
        ends[0] &= np.uint8(ALL_FACES - low)
        ends[-1] &= np.uint8(ALL_FACES - high)
    return ways


@compiled
def _spread(
    labels: np.ndarray,
    heights: np.ndarray,
    bits: np.ndarray,
    seeded: np.ndarray,
    ways: np.ndarray,
    levels: int,
    section: np.uint64,
    row: np.uint64,
) -> None:
    """Flood all free cells that open faces lead to.

    Args:
        labels: (n,) int32; 0 is free.
        heights: (n,) float32.
        bits: the same memory as uint32, whose order is that of the heights.
        seeded: places of the cells that have a label.
        ways: open faces (see `_ways`); when this returns, those to cells that are still free.
        levels: into how many ranges of equal width heights are divided.
        section, row: cells from one section, and from one row, to the next.
    """
    steps = (-section, -row, -_ONE, _ONE, row, section)  # modulo 2**64, as the sums are
    through = (np.uint8(LOW_Z), np.uint8(LOW_Y), np.uint8(LOW_X), np.uint8(HIGH_X), np.uint8(HIGH_Y), np.uint8(HIGH_Z))
    top = heights.max()
    scale = np.float32((levels - 1) / top) if top > 0 else np.float32(0)
    starts = _level_starts(heights, levels, top, scale)
    ends = starts[:-1].astype(np.uint64)
    waiting = np.empty(starts[-1], np.uint32)
    for index in seeded:
        _take(ways, np.uint64(index), section, row)
    for index in seeded:
        cell = np.uint64(index)
        if ways[cell + section] != 0:
            its_level = _level(heights[cell], top, scale)
            waiting[ends[its_level]] = cell
            ends[its_level] += _ONE
    longest = np.diff(starts).max()
    keys, spare = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    counts = np.empty(_DIGITS + 1, np.int32)
    late_keys, late_cells, late = np.empty(1024, np.uint64), np.empty(1024, np.uint32), 0
    age = np.uint64(0)
    free = np.empty(len(steps) + 1, np.uint64)
    for index in range(levels):
        level = np.uint64(index)
        begin, number = np.uint64(starts[level]), 0
        for order in range(ends[level] - begin):
            cell = np.uint64(waiting[begin + np.uint64(order)])
            if ways[cell + section] != 0:
                keys[number] = _key(bits[cell], np.uint64(order))
                number += 1
        _sort(keys[:number], spare, counts)
        place = 0
        while place < number or late > 0:
            if late > 0 and (place == number or late_keys[0] >> np.uint64(32) < keys[place] >> np.uint64(32)):
                cell = np.uint64(late_cells[0])
                late -= 1
                _take_first(late_keys, late_cells, late)
            else:
                cell = np.uint64(waiting[begin + (keys[place] & _LOWEST)])
                place += 1
            its_ways, number_free = ways[cell + section], np.uint64(0)
            for direction in range(len(steps)):  # no branch here: none could be predicted
                free[number_free] = cell + steps[direction]
                number_free += np.uint64(its_ways & through[direction] != 0)
            for turn in range(number_free):
                reached = free[turn]
                labels[reached] = labels[cell]
                _take(ways, reached, section, row)
                if ways[reached + section] == 0:
                    continue
                its_level = _level(heights[reached], top, scale)
                if its_level > level:
                    waiting[ends[its_level]] = reached
                    ends[its_level] += _ONE
                    continue
                if late == len(late_keys):
                    late_keys = np.concatenate((late_keys, np.empty_like(late_keys)))
                    late_cells = np.concatenate((late_cells, np.empty_like(late_cells)))
                _insert(late_keys, late_cells, late, _key(bits[reached], age), reached)
                late += 1
                age += _ONE


@compiled
def _take(ways: np.ndarray, cell: np.uint64, section: np.uint64, row: np.uint64) -> None:
    """Close the ways of its neighbours to a cell."""
    place = cell + section
    ways[place - section] &= np.uint8(ALL_FACES - HIGH_Z)
    ways[place - row] &= np.uint8(ALL_FACES - HIGH_Y)
    ways[place - _ONE] &= np.uint8(ALL_FACES - HIGH_X)
    ways[place + _ONE] &= np.uint8(ALL_FACES - LOW_X)
    ways[place + row] &= np.uint8(ALL_FACES - LOW_Y)
    ways[place + section] &= np.uint8(ALL_FACES - LOW_Z)


@compiled
def _level(height: np.float32, top: np.float32, scale: np.float32) -> np.uint64:
    """Which level a height belongs to; the highest is level 0."""
    return np.uint64(np.uint32(np.int32((top - height) * scale)))


@compiled
def _give_to_nearest(labels: np.ndarray, ways: np.ndarray, section: np.uint64, row: np.uint64) -> None:
    """Give every free cell to the labelled one that is the fewest steps away; of several, to the first in scan order.

    Args:
        labels, section, row: as for `_spread`.
        ways: that steps may go, the same everywhere but at the ends.
    """
    steps = (-section, -row, -_ONE, _ONE, row, section)
    through = (np.uint8(LOW_Z), np.uint8(LOW_Y), np.uint8(LOW_X), np.uint8(HIGH_X), np.uint8(HIGH_Y), np.uint8(HIGH_Z))
    near, number = np.zeros(len(ways), np.uint8), 0  # cells that touch a free one, a few others at the ends as well
    for index in range(len(labels)):
        if labels[index] == 0:
            number += 1
            for direction in range(len(steps)):
                near[np.uint64(index) + section + steps[direction]] = 1
    waiting, end = np.empty(number + np.count_nonzero(near), np.uint32), 0
    for index in range(len(labels)):
        if near[np.uint64(index) + section] != 0 and labels[index] != 0:
            waiting[end] = index
            end += 1
    place = 0
    while place < end:
        cell = np.uint64(waiting[place])
        place += 1
        for direction in range(len(steps)):
            reached = cell + steps[direction]
            if ways[cell + section] & through[direction] != 0 and labels[reached] == 0:
                labels[reached] = labels[cell]
                waiting[end] = reached
                end += 1


@compiled
def _level_starts(heights: np.ndarray, levels: int, top: np.float32, scale: np.float32) -> np.ndarray:
    """Where each level's part of the waiting cells begins, and where the last one ends; (levels + 1,) int32."""
    starts = np.zeros(levels + 1, np.int32)
    for height in heights:
        starts[_level(height, top, scale) + _ONE] += 1
    for level in range(levels):
        starts[level + 1] += starts[level]
    return starts


@compiled
def _key(bits: np.uint32, order: np.uint64) -> np.uint64:
    """What sorts by falling height, then by rising order."""
    return ((_LOWEST - np.uint64(bits)) << np.uint64(32)) | order


@compiled
def _sort(keys: np.ndarray, spare: np.ndarray, counts: np.ndarray) -> None:
    """Sort the keys of a level: by their leading digit, which leaves few to be moved, then by insertion."""
    if len(keys) > _FEW:
        _sort_by_digit(keys, spare, counts)
    shifts = _SHIFTS * len(keys)
    for place in range(1, len(keys)):
        key, before = keys[place], place - 1
        while before >= 0 and keys[before] > key:
            keys[before + 1] = keys[before]
            before -= 1
        keys[before + 1] = key
        shifts -= place - 1 - before
        if shifts < 0:
            keys.sort()
            return


@compiled
def _sort_by_digit(keys: np.ndarray, spare: np.ndarray, counts: np.ndarray) -> None:
    """Sort keys by the first digits in which their heights differ; equal ones keep their order."""
    least, largest = keys[0], keys[0]
    for key in keys:
        least, largest = min(least, key), max(largest, key)
    least >>= np.uint64(32)
    span, shift = (largest >> np.uint64(32)) - least, np.uint64(0)
    while span >> shift >= np.uint64(_DIGITS):
        shift += np.uint64(1)
    counts[:] = 0
    for key in keys:
        counts[int(((key >> np.uint64(32)) - least) >> shift) + 1] += 1
    for digit in range(_DIGITS):
        counts[digit + 1] += counts[digit]
    for key in keys:
        digit = int(((key >> np.uint64(32)) - least) >> shift)
        spare[counts[digit]] = key
        counts[digit] += 1
    keys[:] = spare[: len(keys)]


@compiled
def _insert(keys: np.ndarray, cells: np.ndarray, size: int, key: np.uint64, cell: int) -> None:
    """Add a key and its cell to a heap of a size."""
    place = size
    while place > 0 and keys[(place - 1) // 2] > key:
        above = (place - 1) // 2
        keys[place], cells[place] = keys[above], cells[above]
        place = above
    keys[place], cells[place] = key, cell


@compiled
def _take_first(keys: np.ndarray, cells: np.ndarray, size: int) -> None:
    """Remove the least key of a heap that has `size` others."""
    key, cell, place = keys[size], cells[size], 0
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size and keys[below + 1] < keys[below]:
            below += 1
        if keys[below] >= key:
            break
        keys[place], cells[place] = keys[below], cells[below]
        place = below
    keys[place], cells[place] = key, cell
