"""Chooses the tile: how many chunks prediction computes at a time.

Around each block a network reads a margin, whose own results are thrown away; the larger the block, the smaller the
margin's share. So prediction works on tiles of several chunks, as large as the memory allows. The affinities do not
depend on the tile, except for how a GPU rounds: every tile begins at the pooling grid of the volume and reads all that
its voxels need.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from funlib.geometry import Coordinate

from ..engine.blocks.grid import BlockGrid
from ..volumes import Box

TILES_PER_WORKER = 4
"""At least so many, as long as there are enough blocks: the last tiles keep all workers busy, and the next stage can
begin early."""
MOST_VOXELS = 1 << 26
"""Voxels of the largest tile: so that an interruption costs little, and writing a tile takes little memory."""
AS_GOOD = 1.03
"""Tiles that compute this much more than the best count as equal; the smallest of them is taken."""


@dataclass(frozen=True)
class Span:
    """A possible extent of the tile along one axis.

    Attributes:
        blocks: per tile.
        tiles: along the axis.
        read: voxels that all tiles read together.
        most_read: by one tile.
    """

    blocks: int
    tiles: int
    read: int
    most_read: int


@dataclass(frozen=True, order=True)
class Tile:
    """A possible tile.

    Attributes:
        cost: voxels that are computed, times workers that are there per worker that has something to do.
        voxels: of the tile itself.
        blocks: of which it is made along z, y, x.
        shape: of the tile.
        read: shape of what it reads.
    """

    cost: float
    voxels: int
    blocks: tuple[int, ...]
    shape: tuple[int, ...]
    read: tuple[int, ...]


def tile_blocks(
    grid: BlockGrid,
    read: Callable[[Box], Box],
    bytes_of: Callable[[Coordinate, Coordinate], int],
    room: int,
    workers: int,
) -> Coordinate:
    """The number of blocks along z, y, x that make up the tile with the least to compute.

    Args:
        grid: of the blocks, which are chunks.
        read: the voxels that a network reads for a box of the source.
        bytes_of: the memory that a tile needs, from the shape that it reads and its own.
        room: bytes that there are for it.
        workers: that share the tiles.

    Returns:
        1, 1, 1 if nothing larger fits.
    """
    good: list[Tile] = []
    too_large: list[tuple[int, ...]] = []
    for tile in sorted(_tiles(grid, read, workers)):
        if good and tile.cost > good[0].cost * AS_GOOD:
            break
        if any(_reaches(tile.read, other) for other in too_large):
            continue
        if bytes_of(Coordinate(tile.read), Coordinate(tile.shape)) <= room:
            good.append(tile)
        else:
            too_large.append(tile.read)
    return Coordinate(min(good, key=lambda tile: tile.voxels).blocks) if good else Coordinate(1, 1, 1)


def _tiles(grid: BlockGrid, read: Callable[[Box], Box], workers: int) -> Iterator[Tile]:
    """All tiles that are neither too few nor too large."""
    enough = min(len(grid), TILES_PER_WORKER * workers)
    most = max(MOST_VOXELS, math.prod(grid.block_size))
    for spans in itertools.product(*(_spans(grid, read, axis) for axis in range(3))):
        number = math.prod(span.tiles for span in spans)
        blocks = tuple(span.blocks for span in spans)
        shape = tuple(grid.merged(Coordinate(blocks)).block_size)
        if number >= enough and math.prod(shape) <= most:
            rounds = -(-number // workers) * workers / number
            cost = math.prod(span.read for span in spans) * rounds
            yield Tile(cost, math.prod(shape), blocks, shape, tuple(span.most_read for span in spans))


def _spans(grid: BlockGrid, read: Callable[[Box], Box], axis: int) -> Iterator[Span]:
    """The choices along an axis: of the tiles that there are equally many of, the smallest."""
    extent = grid.shape[axis]
    few = range(1, math.isqrt(extent) + 1)
    for blocks in sorted({*few, *(-(-extent // tiles) for tiles in few)}):
        tiles = -(-extent // blocks)
        first, middle, last = (
            read(_slab(grid, axis, blocks, position)).shape[axis] for position in (0, tiles // 2, tiles - 1)
        )
        yield Span(
            blocks, tiles, first + (last if tiles > 1 else 0) + middle * max(0, tiles - 2), max(first, middle, last)
        )


def _slab(grid: BlockGrid, axis: int, blocks: int, position: int) -> Box:
    """A box of the source that is a tile along one axis, and a single voxel along the others."""
    begin, end = list(grid.region.begin), [first + 1 for first in grid.region.begin]
    begin[axis] += position * blocks * grid.block_size[axis]
    end[axis] = min(begin[axis] + blocks * grid.block_size[axis], grid.region.end[axis])
    return Box(Coordinate(begin), Coordinate(end))


def _reaches(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True))
