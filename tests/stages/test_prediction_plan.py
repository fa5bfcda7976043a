"""What prediction decides when it begins is stored, and read by everything later; how far stages are is asked once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from funlib.geometry import Coordinate
from voronoi_run import make_run, stored

from pipeline.engine.blocks.stage import Stage
from pipeline.engine.tracking import progress
from pipeline.engine.tracking.progress import begin
from pipeline.run import Run, read_json, write_json
from pipeline.stages import tile_choice
from pipeline.stages.by_script import predict, run_chain
from pipeline.stages.predict import PredictTask


def local_run(directory: Path, workers: int = 2, **section: Any) -> Run:
    cluster = {"executor": "local", "workers": workers}
    return make_run(directory, cluster=cluster, predict={"tile_size": [8, 16, 16], **section})


def test_what_is_decided_is_read_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = PredictTask(local_run(tmp_path))
    begin(begun)
    monkeypatch.setattr(tile_choice, "decide_plan", lambda *_: pytest.fail("it was decided again"))
    later = PredictTask(local_run(tmp_path, tile_size="auto"))
    assert later.plan == begun.plan
    assert later.grid.block_size == Coordinate(8, 16, 16)
    assert (later.plan.engine, later.workers) == ("torch", 2)


def test_a_run_goes_on_with_its_tile_on_whatever_the_new_driver_has(tmp_path: Path) -> None:
    begin(PredictTask(local_run(tmp_path)))
    begin(PredictTask(local_run(tmp_path, workers=5, tile_size="auto", device="cpu")))
    plan = PredictTask(local_run(tmp_path)).plan
    assert (plan.tile, plan.workers, plan.device) == (Coordinate(2, 1, 1), 5, "cpu")


def test_a_run_begun_before_there_were_plans_is_finished_with_its_tile_and_engine(tmp_path: Path) -> None:
    """Its tile lies in a file of its own, and its engine in the record of the stage alone."""
    run = local_run(tmp_path)
    assert predict(run)
    finished, task = stored(run, "affinities"), PredictTask(run)
    (task.folder / "plan.json").unlink()
    write_json(task.folder / "tile.json", {"blocks": [2, 1, 1]})
    old = local_run(tmp_path, tile_size=[4, 16, 16])
    assert predict(old), "nothing is left to do"
    assert not (task.folder / "plan.json").exists()
    record = tmp_path / "tracking" / "predict.json"
    write_json(record, {**read_json(record), "complete": False})
    assert predict(old)
    assert read_json(task.folder / "plan.json") == {
        "engine": "torch",
        "device": "auto",
        "tile": [2, 1, 1],
        "workers": 2,
    }
    assert PredictTask(old).grid.block_size == Coordinate(8, 16, 16)
    np.testing.assert_array_equal(stored(old, "affinities"), finished)


def test_a_command_asks_once_how_far_each_stage_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, fragments={"context": [1, 6, 6], "seed_distance": 3, "boundary_threshold": 0.98})
    asked: Counter[str] = Counter()
    ask = progress.progress_of

    def counted(stage: Stage) -> progress.Progress:
        asked[stage.name] += 1
        return ask(stage)

    monkeypatch.setattr(progress, "progress_of", counted)
    assert run_chain(run)
    assert asked == {"predict": 1, "fragments": 1, "rag": 1, "agglomerate": 2}, (
        "of the graph once more when it is there"
    )
    asked.clear()
    assert run_chain(run)
    assert asked == {"predict": 1, "fragments": 1, "rag": 1, "agglomerate": 1}
