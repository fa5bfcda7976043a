"""Which block of a grid daisy means: its number of a block, turned back into a place in the grid.

daisy numbers the places of a grid as Cantor did, along growing diagonals, so that the number of a place does not depend
on how large the grid is. The number comes with the block; the region that it writes is an object that daisy makes when
asked, out of a dozen others, which takes longer than everything else that a worker does about a short block.
"""

from __future__ import annotations

import itertools
from math import cbrt, isqrt
from typing import Protocol

from daisy import _daisy as daisy_core
from funlib.geometry import Coordinate, Roi

from .stage import BlockTask


class Given(Protocol):
    """What this module asks of a block that daisy gave."""

    @property
    def block_id(self) -> tuple[str, int]:
        """Its task and its number."""

    @property
    def write_roi(self) -> Roi:
        """The region in nanometres that it writes."""


class Numbering:
    """Finds the blocks of a task in its grid by the numbers that daisy gives them.

    daisy is asked for the numbers of the grid's corners first. If one does not lead back to its corner (beyond 64 bits
    they cannot), blocks are found by their regions.

    Args:
        task: whose blocks; daisy plans with its context.
    """

    def __init__(self, task: BlockTask) -> None:
        self._grid = task.grid
        self._before = tuple(int(c) // int(b) for c, b in zip(task.context, self._grid.block_size, strict=True))
        self._blocks = tuple(int(blocks) for blocks in self._grid.shape)
        self.trusted = all(
            self._index_of_number(_number_by_daisy(task, corner)) == self._index_at(*corner)
            for corner in itertools.product(*({0, blocks - 1} for blocks in self._blocks))
        )
        """Whether blocks are found by their numbers."""

    def index_of(self, given: Given) -> int:
        """The index of a block in the grid.

        Raises:
            ValueError: it is no block of the grid.
        """
        index = self._index_of_number(given.block_id[1]) if self.trusted else None
        return self._grid.index_of(given.write_roi) if index is None else index

    def _index_of_number(self, number: int) -> int | None:
        """None if no block of the grid has the number. The sum of z, y and x is found first, then that of z and y."""
        total = int(cbrt(6 * number))  # or one less
        before = total * (total + 1) * (total + 2) // 6
        if before > number:
            before -= total * (total + 1) // 2
            total -= 1
        rest = number - before
        both = (isqrt(8 * rest + 1) - 1) // 2
        z = rest - both * (both + 1) // 2
        y, x = both - z, total - both
        before_z, before_y, before_x = self._before
        z, y, x = z - before_z, y - before_y, x - before_x
        blocks_z, blocks_y, blocks_x = self._blocks
        if 0 <= z < blocks_z and 0 <= y < blocks_y and 0 <= x < blocks_x:
            return (z * blocks_y + y) * blocks_x + x
        return None

    def _index_at(self, z: int, y: int, x: int) -> int:
        _, blocks_y, blocks_x = self._blocks
        return (z * blocks_y + y) * blocks_x + x


def _number_by_daisy(task: BlockTask, position: tuple[int, ...]) -> int:
    """The number that daisy gives to the block at a position."""
    grid = task.grid
    step, context = grid.block_size * grid.voxel_size, task.context * grid.voxel_size
    whole = grid.to_roi(grid.box).grow(context, context)
    region = Roi(grid.offset + step * Coordinate(position), step)
    return int(daisy_core.Block(whole, region, region, task_id=task.name).block_id[1])
