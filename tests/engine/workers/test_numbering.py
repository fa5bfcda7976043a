"""A block of daisy's is found in the grid by its number, whatever the shape, the shift and the context."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from daisy import _daisy as daisy_core
from funlib.geometry import Coordinate, Roi
from toy_tasks import Doubled, make_run

from pipeline.engine.blocks.grid import ZERO, BlockGrid
from pipeline.engine.workers.numbering import Numbering
from pipeline.run import Run
from pipeline.volumes import Box


@dataclass(frozen=True)
class WithContext(Doubled):
    """A task of some grid that reads around its blocks."""

    around: Coordinate = ZERO
    cut: BlockGrid | None = None

    @property
    def context(self) -> Coordinate:
        return self.around

    @cached_property
    def grid(self) -> BlockGrid:
        assert self.cut is not None
        return self.cut


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path)


def task_of(run: Run, shape: tuple[int, ...], block: tuple[int, ...], context: tuple[int, ...]) -> WithContext:
    """A task on a grid that begins somewhere."""
    begin, voxel = Coordinate(3, 5, 7), Coordinate(40, 8, 4)
    size = Coordinate(min(b, e) for b, e in zip(block, shape, strict=True))
    grid = BlockGrid(Box(begin, begin + Coordinate(shape)), size, voxel, (begin - 20) * voxel)
    return WithContext(run, around=Coordinate(context), cut=grid)


def blocks_by_daisy(task: WithContext) -> list[daisy_core.Block]:
    """All blocks, as daisy's scheduler makes them for a task."""
    first, context = task.grid.to_roi(task.grid.block(0).box), task.context * task.grid.voxel_size
    whole = task.grid.to_roi(task.grid.box).grow(context, context)
    graph = daisy_core.BlockwiseDependencyGraph(
        task.name, first.grow(context, context), first, False, "shrink", total_read_roi=whole
    )
    return [block for block, _ in graph.enumerate_all_dependencies()]


class NoRegion:
    """A block of which only the number is told."""

    def __init__(self, block: daisy_core.Block) -> None:
        self.block_id = block.block_id

    @property
    def write_roi(self) -> Roi:
        """Not to be asked for: it takes as long as all else."""
        raise AssertionError


@pytest.mark.parametrize("context", [(0, 0, 0), (1, 3, 2), (4, 8, 9), (13, 0, 30)])
@pytest.mark.parametrize("block", [(4, 4, 4), (1, 3, 8), (40, 40, 40)])
@pytest.mark.parametrize("shape", [(8, 12, 16), (9, 10, 31), (1, 1, 1), (4, 1, 40)])
def test_the_number_of_every_block_leads_to_its_place(
    run: Run, shape: tuple[int, ...], block: tuple[int, ...], context: tuple[int, ...]
) -> None:
    task = task_of(run, shape, block, context)
    numbering, given = Numbering(task), blocks_by_daisy(task)
    assert numbering.trusted
    indices = [numbering.index_of(NoRegion(block)) for block in given]
    assert indices == [task.grid.index_of(block.write_roi) for block in given]
    assert sorted(indices) == list(range(len(task.grid)))


def test_numbers_of_a_vast_grid_are_exact(run: Run) -> None:
    side = 10**6
    task = task_of(run, (side,) * 3, (1, 1, 1), (0, 0, 0))
    numbering, step = Numbering(task), task.grid.voxel_size
    assert numbering.trusted
    whole = task.grid.to_roi(task.grid.box)
    for position in [(0, 0, side - 1), (side - 1, 0, 0), (side - 1, 1, side - 2), (123_456, 789_012, 345_678)]:
        region = Roi(task.grid.offset + step * Coordinate(position), step)
        given = NoRegion(daisy_core.Block(whole, region, region, task_id=task.name))
        z, y, x = position
        assert numbering.index_of(given) == (z * side + y) * side + x


def test_where_numbers_do_not_fit_into_64_bits_regions_are_used(run: Run) -> None:
    side = 10**7
    task = task_of(run, (side,) * 3, (1, 1, 1), (0, 0, 0))
    numbering, step = Numbering(task), task.grid.voxel_size
    assert not numbering.trusted
    region = Roi(task.grid.offset + step * Coordinate(side - 1, 0, 5), step)
    given = daisy_core.Block(task.grid.to_roi(task.grid.box), region, region, task_id=task.name)
    assert numbering.index_of(given) == (side - 1) * side * side + 5


def test_a_block_outside_of_the_grid_is_refused(run: Run) -> None:
    task = task_of(run, (8, 8, 8), (4, 4, 4), (0, 0, 0))
    region = Roi(task.grid.offset + task.grid.voxel_size * Coordinate(0, 0, 8), task.grid.voxel_size * 4)
    given = daisy_core.Block(task.grid.to_roi(task.grid.box), region, region, task_id=task.name)
    with pytest.raises(ValueError, match="no block"):
        Numbering(task).index_of(given)
