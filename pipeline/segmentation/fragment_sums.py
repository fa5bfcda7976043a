"""Sizes, places and boxes of fragments in one pass over a block.

for every run of equal ids along x that is not 0:
    size[id] += its voxels
    index_sum[id] += the sums of their z, y and x
    begin[id], end[id] = the box so far, with the run in it
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled

Sums = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@compiled
def sum_fragments(fragments: np.ndarray, first: np.uint64, number: int) -> Sums:
    """Sums over the voxels of fragments with consecutive ids.

    Args:
        fragments: (z, y, x) uint64, ids from first to first + number - 1; 0 is no fragment.
        first: the first id.
        number: of ids.

    Returns:
        Voxels (number,), and sums of their indices (number, 3), first voxel of the bounding box and one past its last
        (number, 3 each), order z, y, x; int64. Of an id that does not occur, 0 voxels.
    """
    size = np.zeros(number, np.int64)
    index_sum = np.zeros((number, 3), np.int64)
    begin = np.zeros((number, 3), np.int64)
    end = np.zeros((number, 3), np.int64)
    depth, height, width = fragments.shape
    for z in range(depth):
        for y in range(height):
            x = 0
            while x < width:
                here, start = fragments[z, y, x], x
                while x < width and fragments[z, y, x] == here:
                    x += 1
                if here == 0:
                    continue
                row = np.int64(here - first)
                run = x - start
                index_sum[row, 0] += run * z
                index_sum[row, 1] += run * y
                index_sum[row, 2] += run * (start + x - 1) // 2
                if size[row] == 0:
                    begin[row, 0], begin[row, 1], begin[row, 2] = z, y, start
                    end[row, 1], end[row, 2] = y + 1, x
                else:
                    begin[row, 1], begin[row, 2] = min(begin[row, 1], y), min(begin[row, 2], start)
                    end[row, 1], end[row, 2] = max(end[row, 1], y + 1), max(end[row, 2], x)
                end[row, 0] = z + 1
                size[row] += run
    return size, index_sum, begin, end
