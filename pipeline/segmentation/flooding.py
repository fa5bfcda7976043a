"""A seeded watershed by a hierarchical queue, from the highest voxel down (Meyer 1991).

Heights are rounded to levels, thin ones: a 256th of a voxel where heights are distances. Voxels wait at their level in
the order in which they were reached, so that nothing is sorted. Water that reaches a voxel above its own level, behind
a pass, goes on from there at once: that voxel waits behind those of the level at which the water stands.

    for every cell with a label and a free neighbour: append it to waiting[its level]
    for level, from the highest to the lowest:
        for cell in waiting[level], then in those that join them meanwhile:
            for reached in the free neighbours of cell:
                label of reached = label of cell
                append it to waiting[its level], or to waiting[level] if its own is higher

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

LEVEL = 1 / 256
"""Heights that differ by less than this may count as equal."""
_MOST_LEVELS = 1 << 16
_ONE = np.uint64(1)


def flood(
    heights: np.ndarray, seeds: np.ndarray, faces: np.ndarray | None = None, *, sections_first: bool = False
) -> np.ndarray:
    """Give every voxel to the seed whose water reaches it first.

    Water spreads through open faces of voxels and always from the highest level reached, of equally high voxels from
    the one that was reached first; seeds were reached in scan order. Of the voxels that are left then, each is given to
    the nearest one with water, counted in steps through any faces.

    Args:
        heights: (z, y, x) float32, not negative; rounded down to multiples of `LEVEL`, and of larger steps where the
            largest is more than 255.
        seeds: (z, y, x) integers, 1 … n in seeds and 0 elsewhere.
        faces: (z, y, x) uint8, the open faces of each voxel (see `open_faces`). Default: all faces are open.
        sections_first: the nearest voxel with water is sought in the same section first (anisotropic voxels).

    Returns:
        (z, y, x) int32. Without seeds, all 0.
    """
    labels = np.array(seeds, np.int32, order="C")
    del seeds  # frees memory if nobody else holds them
    flat = labels.reshape(-1)
    section, row = np.uint64(labels.shape[1] * labels.shape[2]), np.uint64(labels.shape[2])
    ways = _ways(labels.shape, ALL_FACES if faces is None else faces)
    _spread(flat, _levels(heights), np.flatnonzero(flat), ways, section, row)
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


def _levels(heights: np.ndarray) -> np.ndarray:
    """The level of each height, (n,) uint16; the highest one is 0."""
    step = max(LEVEL, float(heights.max()) / (_MOST_LEVELS - 1))
    ranks = np.empty(heights.shape, np.uint16)
    for section, out in zip(heights, ranks, strict=True):
        out[...] = section * np.float32(1 / step)
    levels: np.ndarray = (ranks.max() - ranks).reshape(-1)
    return levels


@compiled
def _spread(
    labels: np.ndarray, levels: np.ndarray, seeded: np.ndarray, ways: np.ndarray, section: np.uint64, row: np.uint64
) -> None:
    """Flood all free cells that open faces lead to.

    Args:
        labels: (n,) int32; 0 is free.
        levels: (n,) uint16, from the highest, 0, down.
        seeded: places of the cells that have a label.
        ways: open faces (see `_ways`); when this returns, those to cells that are still free.
        section, row: cells from one section, and from one row, to the next.
    """
    steps = (-section, -row, -_ONE, _ONE, row, section)  # modulo 2**64, as the sums are
    through = (np.uint8(LOW_Z), np.uint8(LOW_Y), np.uint8(LOW_X), np.uint8(HIGH_X), np.uint8(HIGH_Y), np.uint8(HIGH_Z))
    starts = _level_starts(levels)
    ends = starts[:-1].astype(np.uint64)
    waiting = np.empty(len(levels), np.uint32)
    joining = np.empty(len(levels), np.uint32)  # touched no further than any level needs
    for index in seeded:
        _take(ways, np.uint64(index), section, row)
    for index in seeded:
        cell = np.uint64(index)
        if ways[cell + section] != 0:
            waiting[ends[levels[cell]]] = cell
            ends[levels[cell]] += _ONE
    free = np.empty(len(steps) + 1, np.uint64)
    for level in range(len(ends)):
        place, end = np.uint64(starts[level]), ends[level]
        joined, last = np.uint64(0), np.uint64(0)
        while place < end or joined < last:
            if place < end:
                cell = np.uint64(waiting[place])
                place += _ONE
            else:
                cell = np.uint64(joining[joined])
                joined += _ONE
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
                its_level = levels[reached]
                if its_level > level:
                    waiting[ends[its_level]] = reached
                    ends[its_level] += _ONE
                else:
                    joining[last] = reached
                    last += _ONE


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
def _level_starts(levels: np.ndarray) -> np.ndarray:
    """Where each level's part of the waiting cells begins, and where the last one ends."""
    starts = np.zeros(int(levels.max()) + 2, np.int64)
    for level in levels:
        starts[int(level) + 1] += 1
    for level in range(len(starts) - 1):
        starts[level + 1] += starts[level]
    return starts
