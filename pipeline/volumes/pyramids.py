"""Pyramids: the same volume at coarser and coarser levels, for viewers.

Each level is made of the one before. Along the axes whose voxels are short, two become one, until voxels are about as
long as wide; then along all. Voxels beyond the far faces do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal

import numpy as np
import tensorstore as ts
from funlib.geometry import Coordinate

from .boxes import Box, crop

Method = Literal["mean", "majority"]
"""How several voxels become one."""

Reader = Callable[[Box], np.ndarray]
"""Gives the voxels of a box."""

PIECE = 64
"""Voxels along the edge of what is made at a time: of twice as many of the level before, which bounds the memory and
keeps them in the processor's cache."""


def level_factors(
    voxel_size: Sequence[float], shape: Sequence[int], smallest: int, keep_sections: bool = False
) -> list[Coordinate]:
    """The levels of a pyramid below the volume itself.

    Args:
        voxel_size: nanometres along z, y, x; fractions count exactly as they are written.
        shape: of the volume in voxels.
        smallest: the last level is the first with at most so many voxels along every axis that is joined.
        keep_sections: never join along z.

    Returns:
        For each level how many voxels of the volume along z, y, x are one of its voxels; empty for a small volume.
    """
    factors: list[Coordinate] = []
    total, extents = [1, 1, 1], list(shape)
    sizes = [Fraction(repr(float(size))) for size in voxel_size]
    joined = (1, 2) if keep_sections else (0, 1, 2)
    while max(extents[axis] for axis in joined) > smallest:
        step = [1, 1, 1]
        divisible = [axis for axis in joined if extents[axis] > 1]
        shortest = min(sizes[axis] for axis in divisible)
        for axis in divisible:
            # up to a ratio of the root of two, joining this axis, too, leaves voxels more isotropic than leaving it out
            if sizes[axis] ** 2 <= 2 * shortest**2:
                step[axis] = 2
        total = [t * s for t, s in zip(total, step, strict=True)]
        sizes = [size * s for size, s in zip(sizes, step, strict=True)]
        extents = [-(-extent // t) for extent, t in zip(shape, total, strict=True)]
        factors.append(Coordinate(total))
    return factors


def downsample(data: np.ndarray, factors: Sequence[int], method: Method) -> np.ndarray:
    """Every box of `factors` voxels as one voxel; boxes that the far faces cut have fewer.

    Args:
        data: (z, y, x) or (k, z, y, x), for `majority` of whole numbers; its first voxel begins a box.
        factors: along z, y, x.
        method: `mean`: the arithmetic mean, of whole numbers rounded, halves to the even one. `majority`: the most
            frequent value; of equally frequent ones the smallest, but 0 only if no other is as frequent.

    Returns:
        The dtype of `data`; each extent divided by its factor, rounded up.
    """
    every = [*[1] * (data.ndim - 3), *map(int, factors)]
    if method == "mean":
        return np.asarray(ts.downsample(ts.array(data), every, "mean").read().result())
    # TensorStore takes the smallest of equally frequent values; so 0 becomes the largest that there is
    unsigned = np.ascontiguousarray(data).view(f"u{data.itemsize}")
    one = np.ones((), unsigned.dtype)
    result: np.ndarray = ts.downsample(ts.array(unsigned - one), every, "mode").read().result() + one
    return result.view(data.dtype)


def downsampled_box(
    source: Reader,
    box: Box,
    shape: Sequence[int],
    factors: Sequence[int],
    method: Method,
    dtype: np.dtype,
    channels: tuple[int, ...] = (),
) -> np.ndarray:
    """A box of a level from the level before, read and joined piece by piece.

    Args:
        source: reads a box of the level before.
        box: voxels of the level.
        shape: of the level before.
        factors: voxels of the level before along z, y, x that are one of the level.
        method: as of `downsample`.
        dtype: of both levels.
        channels: extent of a first axis, if there is one.

    Returns:
        (z, y, x) or (k, z, y, x).
    """
    result = np.empty((*channels, *box.shape), dtype)
    before = Box.of_shape(shape)
    for piece in box.split((PIECE,) * 3):
        read = Box(piece.begin * Coordinate(factors), piece.end * Coordinate(factors)).intersect(before)
        crop(result, piece.relative_to(box))[:] = downsample(source(read), factors, method)
    return result
