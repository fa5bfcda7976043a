"""Blocks that hold nothing cost nothing, are zero by definition, and nobody takes them for damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from funlib.geometry import Coordinate
from run_files import shard_of
from toy_tasks import Doubled, Summed, make_run, visits

from pipeline.engine.blocks.empty_blocks import empty_blocks
from pipeline.engine.blocks.grid import Block, BlockGrid
from pipeline.engine.chain import run_stages
from pipeline.engine.tracking.markers import done_blocks
from pipeline.errors import UserError
from pipeline.run import Run, read_json
from pipeline.volumes import Box, create_volume, open_volume

BLOCKS = 2 * 2 * 3
SHAPE = (9, 10, 11)


def first_block_constant(run: Run) -> None:
    raw = open_volume(run.volume, "raw", "r+")
    values = raw.read(raw.box)
    values[1:5, 2:6, 1:5] = 77
    raw.write(raw.box, values)


def mask_without_first_block(run: Run) -> None:
    mask = create_volume(run.volume, "mask", SHAPE, "uint8", voxel_size=(40, 8, 8), chunks=(4, 4, 4))
    values = np.ones(SHAPE, np.uint8)
    values[1:5, 2:6, 1:5] = 0
    mask.write(mask.box, values)


@pytest.mark.parametrize("executor", ["serial", "local"])
@pytest.mark.parametrize("emptied", [first_block_constant, mask_without_first_block])
def test_empty_blocks_are_skipped_by_every_stage_and_are_zero(
    tmp_path: Path, executor: str, emptied: Callable[[Run], None]
) -> None:
    run = make_run(tmp_path, cluster={"executor": executor})
    emptied(run)
    assert run_stages(run, [Doubled(run)], False)
    assert visits(tmp_path) == dict.fromkeys(range(1, BLOCKS), 1)
    doubled = open_volume(run.volume, "doubled")
    assert not doubled.read(Box(Coordinate(0, 0, 0), Coordinate(4, 4, 4))).any()
    assert not shard_of(run, "doubled", 0, 0, 0).exists()
    assert Doubled(run).open_complete().read(doubled.box).any(), "a chunk that need not be there is no error"
    entry = read_json(run.summary)["stages"]["doubled"]
    assert (entry["blocks_done"], entry["blocks_skipped"], entry["blocks_empty"]) == (BLOCKS - 1, 1, 1)
    assert int(done_blocks(Doubled(run)).sum()) == BLOCKS - 1
    assert run_stages(run, [Doubled(run)], False)
    assert sum(visits(tmp_path).values()) == BLOCKS - 1


def test_everything_may_be_empty(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    raw = open_volume(run.volume, "raw", "r+")
    raw.write(raw.box, np.full(SHAPE, 3, np.uint8))
    assert run_stages(run, [Doubled(run), Summed(run)], False)
    assert not visits(tmp_path)
    assert read_json(run.summary)["stages"]["summed"]["blocks_empty"] == BLOCKS


def test_a_few_equal_voxels_at_the_far_face_are_not_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, shape=(6, 11, 10))  # the last block has one voxel
    assert not empty_blocks(run, Doubled(run).grid).any()


def test_an_interrupted_search_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    first_block_constant(run)
    grid = Doubled(run).grid
    monkeypatch.setattr("pipeline.engine.blocks.empty_blocks.SAVE_EVERY", 5)
    looked: list[int] = []

    def broken_after(limit: int) -> None:
        def full_box(grid: BlockGrid, block: Block) -> Box:
            if len(looked) == limit:
                raise UserError("interrupted")
            looked.append(block.index)
            return block.box

        monkeypatch.setattr("pipeline.engine.blocks.empty_blocks.full_box", full_box)

    broken_after(8)
    with pytest.raises(UserError, match="interrupted"):
        empty_blocks(run, grid)
    looked.clear()
    broken_after(100)
    empty_blocks(run, grid)
    assert len(looked) <= BLOCKS - 5
    looked.clear()
    empty_blocks(run, grid)
    assert not looked, "what is known is not looked for again"


def test_nothing_is_skipped_when_the_config_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    first_block_constant(run)
    everything = make_run(tmp_path / "all", predict={"skip_empty": False})
    first_block_constant(everything)
    assert empty_blocks(run, Doubled(run).grid).sum() == 1
    assert run_stages(everything, [Doubled(everything)], False)
    assert visits(tmp_path / "all") == dict.fromkeys(range(BLOCKS), 1)
