"""Which block of a grid daisy means: its number of a block, turned back into a place in the grid.

daisy numbers the places of a grid as Cantor did, along growing diagonals, so that the number of a place does not depend
on how large the grid is. The number comes with the block; the region that it writes is an object that daisy makes when
asked, out of a dozen others, which takes longer than everything else that a worker does about a short block.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import cbrt, isqrt
from typing import Protocol

from daisy import _daisy as daisy_core
from funlib.geometry import Coordinate, Roi

from ..blocks.stage import BlockTask


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

    Attributes:
        trusted: blocks are found by their numbers.
    """

    def __init__(self, task: BlockTask) -> None:
        self._grid, self.trusted = task.grid, True
        blocks = self._blocks_z, self._blocks_y, self._blocks_x = tuple(map(int, task.grid.shape))
        before = (int(c) // int(size) for c, size in zip(task.context, task.grid.block_size, strict=True))
        self._before_z, self._before_y, self._before_x = before
        corners = itertools.product(*({0, extent - 1} for extent in blocks))
        self.trusted = all(self._leads_back(task, corner) for corner in corners)

    def index_of(self, given: Given) -> int:
        """The index of a block in the grid.

        Raises:
            ValueError: it is no block of the grid.
        """
        if self.trusted:
            number = given.block_id[1]
            diagonal = int(cbrt(6 * number))  # z + y + x, or one more
            first = diagonal * (diagonal + 1) * (diagonal + 2) // 6
            if first > number:
                first -= diagonal * (diagonal + 1) // 2
                diagonal -= 1
            rest = number - first
            row = (isqrt(8 * rest + 1) - 1) // 2  # z + y
            z = rest - row * (row + 1) // 2
            y, x = row - z - self._before_y, diagonal - row - self._before_x
            z -= self._before_z
            if 0 <= z < self._blocks_z and 0 <= y < self._blocks_y and 0 <= x < self._blocks_x:
                return (z * self._blocks_y + y) * self._blocks_x + x
        return self._grid.index_of(given.write_roi)

    def _leads_back(self, task: BlockTask, position: tuple[int, ...]) -> bool:
        """Whether the number that daisy gives to the block at a position is that of the position."""
        grid = task.grid
        step, context = grid.block_size * grid.voxel_size, task.context * grid.voxel_size
        whole = grid.to_roi(grid.box).grow(context, context)
        region = Roi(grid.offset + step * Coordinate(position), step)
        block = daisy_core.Block(whole, region, region, task_id=task.name)
        z, y, x = position
        index = (z * self._blocks_y + y) * self._blocks_x + x
        try:
            return self.index_of(_Numbered(block.block_id)) == index
        except _NoSuchNumber:
            return False


class _NoSuchNumber(Exception):
    """No block of the grid has a number."""


@dataclass(frozen=True)
class _Numbered:
    """A block of which nothing but the number is known."""

    block_id: tuple[str, int]

    @property
    def write_roi(self) -> Roi:
        """Asked for when the number leads nowhere."""
        raise _NoSuchNumber
