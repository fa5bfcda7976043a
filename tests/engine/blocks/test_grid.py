"""Blocks tile the region exactly, and fragment ids of different blocks never meet."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from funlib.geometry import Coordinate

from pipeline.engine.blocks.grid import BlockGrid
from pipeline.errors import UserError
from pipeline.volumes import Box


def make_grid(shape: tuple[int, int, int], block_size: tuple[int, int, int]) -> BlockGrid:
    begin = Coordinate(3, 5, 7)
    voxel_size = Coordinate(40, 8, 8)
    return BlockGrid(Box(begin, begin + Coordinate(shape)), Coordinate(block_size), voxel_size, begin * voxel_size)


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 10, 11), (1, 1, 1), (4, 1, 9)])
@pytest.mark.parametrize("block_size", [(4, 4, 4), (1, 3, 8)])
def test_every_voxel_belongs_to_exactly_one_block(
    shape: tuple[int, int, int], block_size: tuple[int, int, int]
) -> None:
    grid = make_grid(shape, block_size)
    covered = np.zeros(shape, dtype=int)
    for block in grid:
        covered[block.box.slices] += 1
        assert grid.block(grid.index_of(block.box.begin)) == block
    assert (covered == 1).all()


def test_fragment_ids_of_blocks_do_not_overlap_even_if_every_voxel_is_a_fragment() -> None:
    grid = make_grid((2, 2, 3), (1, 1, 1))
    ranges = [grid.fragment_ids(block) for block in grid]
    assert ranges[0] == (1, 2)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))


def test_a_region_that_is_no_block_is_refused() -> None:
    grid = make_grid((8, 8, 8), (4, 4, 4))
    for begin in [(1, 0, 0), (8, 0, 0), (-4, 0, 0), (0, 0, 8)]:
        with pytest.raises(ValueError, match="no block"):
            grid.index_of(begin)
    for index in (-1, 8):
        with pytest.raises(ValueError, match=f"no block {index}"):
            grid.block(index)


def test_more_voxels_than_ids_are_refused() -> None:
    with pytest.raises(UserError, match="fragment ids"):
        make_grid((2**21, 2**21, 2**22), (32, 256, 256)).check_ids()
