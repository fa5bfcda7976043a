"""What the engine promises about outputs that are there already: nothing done twice, nothing stale, nothing mixed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from toy_tasks import BLOCKS, Doubled, Summed, expected_sums, make_run, result, toy_chain, visits

from pipeline.engine.blocks.grid import BlockGrid
from pipeline.engine.chain import run_stages
from pipeline.errors import UserError
from pipeline.run import Run, read_json


def test_an_unchanged_run_computes_nothing_again(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert toy_chain(run)
    before = read_json(run.summary)["stages"]["summed"]
    assert toy_chain(run)
    assert visits(tmp_path) == dict.fromkeys(range(BLOCKS), 1)
    after = read_json(run.summary)["stages"]["summed"]
    assert (after["blocks_done"], after["blocks_skipped"]) == (0, BLOCKS)
    assert after["seconds"] == before["seconds"]


def test_a_resumed_run_asks_the_driver_nothing_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    assert toy_chain(run)
    calls: list[int] = []
    monkeypatch.setattr(BlockGrid, "block", lambda grid, index: calls.append(index))
    monkeypatch.setattr(BlockGrid, "index_of", lambda grid, begin: calls.append(begin))
    assert toy_chain(run)
    assert not calls, "a run of 100,000 finished blocks would take minutes to find out that nothing is to be done"


def test_changed_settings_are_refused_until_told_to_overwrite(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert toy_chain(run)
    with pytest.raises(UserError, match=r"doubled \(changed: toy.factor\); summed \(follows doubled\).*--overwrite"):
        toy_chain(run, factor=3)
    np.testing.assert_array_equal(result(run), expected_sums(run))
    assert toy_chain(run, factor=3, overwrite=True)
    np.testing.assert_array_equal(result(run), expected_sums(run, factor=3))


def test_overwrite_keeps_what_still_fits(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert toy_chain(run)
    assert toy_chain(run, overwrite=True)
    assert visits(tmp_path) == dict.fromkeys(range(BLOCKS), 1)


def test_a_stage_refuses_upstream_output_that_is_missing_unfinished_or_stale(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(UserError, match=r"needs doubled, which is missing; run doubled\.py first"):
        run_stages(run, [Summed(run)], False)
    (tmp_path / "raise").write_text("0")
    assert not run_stages(run, [Doubled(run)], False)
    with pytest.raises(UserError, match="which is not complete"):
        run_stages(run, [Summed(run)], False)
    (tmp_path / "raise").unlink()
    assert run_stages(run, [Doubled(run)], False)
    with pytest.raises(UserError, match="which is stale"):
        run_stages(run, [Summed(run, 3)], False)


def test_a_moved_run_directory_resumes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "old")
    assert toy_chain(run)
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = Run(run.config.model_copy(update={"run_directory": str(tmp_path / "new")}))
    assert toy_chain(moved)
    assert visits(tmp_path / "new") == dict.fromkeys(range(BLOCKS), 1)
    assert json.loads((tmp_path / "new" / "config.json").read_text())["run_directory"] == "."


def test_deleted_output_is_made_again_although_its_markers_remain(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert toy_chain(run)
    shutil.rmtree(run.volume / "summed")
    assert toy_chain(run)
    np.testing.assert_array_equal(result(run), expected_sums(run))


def test_markers_that_were_begun_in_nanometres_go_on(tmp_path: Path) -> None:
    """daisy notes the geometry with its markers, in the unit that the task was given in."""
    run = make_run(tmp_path)
    (tmp_path / "raise").write_text("0")
    assert not run_stages(run, [Doubled(run)], False)
    attributes = Doubled(run).folder / "blocks" / "zarr.json"
    document = json.loads(attributes.read_text())
    assert document["attributes"]["daisy_task_hash"], "else this test shows nothing"
    document["attributes"]["daisy_task_hash"] = "0" * 64
    attributes.write_text(json.dumps(document))
    (tmp_path / "raise").unlink()
    assert toy_chain(run)
    np.testing.assert_array_equal(result(run), expected_sums(run))
    assert visits(tmp_path) == {0: 2} | dict.fromkeys(range(1, BLOCKS), 1)


def test_deleted_markers_are_no_harm(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert toy_chain(run)
    shutil.rmtree(run.tracking)
    assert toy_chain(run)
    np.testing.assert_array_equal(result(run), expected_sums(run))
