"""The whole chain with worker processes: the same answer however it ran."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voronoi_run import assert_same, everything, make_run

from pipeline.command_names import SCRIPTS, goes_on_by_itself, script_after
from pipeline.engine.blocks.stage import BlockTask
from pipeline.engine.tracking.progress import begin, write_record
from pipeline.errors import UserError
from pipeline.run import Run, read_json
from pipeline.stages.by_script import STAGES_OF, chained_stages, run_chain, segment
from pipeline.stages.predict import PredictTask

FRAGMENTS = {"context": [1, 6, 6], "seed_distance": 3, "boundary_threshold": 0.98}


def test_every_stage_names_the_script_that_runs_it(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    scripts = {step: {stage.script for stage in stages_of(run)} for step, stages_of in STAGES_OF.items()}
    assert scripts == {step: {SCRIPTS[step]} for step in STAGES_OF}
    assert [script_after(SCRIPTS[step]) for step in STAGES_OF] == [
        "03_extract_fragments.py",
        "04_agglomerate.py",
        "05_segment.py",
        "06_evaluate.py",
    ]
    assert [script_after(script) for script in ("my_own.py", list(SCRIPTS.values())[-1])] == [None, None]


def test_the_next_command_is_one_that_can_do_something(undisturbed: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Without labels nothing is scored; and a step of something larger does not say what that does anyway."""

    def said() -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert segment(undisturbed)
        return [line for line in caplog.messages if line.startswith("next:")]

    (line,) = said()
    assert "07_view.py" in line
    with goes_on_by_itself():
        assert said() == []


def make_chain_run(directory: Path, executor: str = "serial", workers: int = 1, **sections: Any) -> Run:
    cluster = {"executor": executor, "workers": workers}
    predict = {"tile_size": "auto", **sections.pop("predict", {})}
    return make_run(directory, cluster=cluster, fragments=FRAGMENTS, predict=predict, **sections)


def run_everything(run: Run, overwrite: bool = False) -> bool:
    return run_chain(run, overwrite) and segment(run, overwrite)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_chain_run(tmp_path_factory.mktemp("undisturbed"))
    assert run_everything(run)
    return run


def test_worker_processes_give_the_same_answer_as_none(tmp_path: Path, undisturbed: Run) -> None:
    expected = everything(undisturbed)
    assert len(expected["nodes.id"]) > 30
    assert len(expected["edges.u"]) > 30
    run = make_chain_run(tmp_path, "local", workers=2)
    assert run_everything(run)
    assert_same(everything(run), expected)
    stages = read_json(run.summary)["stages"]
    assert list(stages) == ["predict", "fragments", "rag", "agglomerate", "segment", "certainty"]
    assert all(stage["blocks_failed"] == 0 for stage in stages.values())
    assert all(stage["peak_worker_memory"] > 1_000_000 for stage in stages.values())
    assert stages["segment"]["blocks_done"] == 2 * stages["fragments"]["blocks_done"]
    assert stages["predict"]["blocks_done"] == len(PredictTask(run).grid)


def test_any_order_of_blocks_interrupted_or_not_gives_the_same_answer(tmp_path: Path, undisturbed: Run) -> None:
    run = make_chain_run(tmp_path)
    chance = np.random.default_rng(3)
    for stage in chained_stages(run):
        if isinstance(stage, BlockTask):
            begin(stage)
            order = chance.permutation(len(stage.grid)).tolist()
            for part in (order[:5], order[3:]):  # some blocks twice: what a worker did that died before it said so
                with stage.process() as process_block:
                    for index in part:
                        process_block(stage.grid.block(index))
            write_record(stage, complete=True)
    assert run_everything(run)
    assert_same(everything(run), everything(undisturbed))
    assert read_json(run.summary)["stages"]["rag"]["blocks_done"] == 0


def test_a_moved_run_computes_nothing_again(tmp_path: Path, undisturbed: Run) -> None:
    shutil.copytree(undisturbed.directory, tmp_path / "moved")
    moved = make_chain_run(tmp_path / "moved")
    assert run_everything(moved)
    stages = read_json(moved.summary)["stages"]
    assert all(stage["blocks_done"] == 0 and stage["blocks_skipped"] > 0 for stage in stages.values())


def test_other_affinities_make_everything_stale_and_overwrite_redoes_it(tmp_path: Path, undisturbed: Run) -> None:
    shutil.copytree(undisturbed.directory, tmp_path / "copy")
    predict = {"block_size": [8, 16, 16]}
    changed = make_chain_run(tmp_path / "copy", predict=predict)
    stale = r"stale: predict \(changed: predict.block_size\); fragments \(follows predict\); rag .*; agglomerate"
    with pytest.raises(UserError, match=stale):
        run_chain(changed)
    assert_same(everything(changed), everything(undisturbed))
    assert run_everything(changed, overwrite=True)
    fresh = make_chain_run(tmp_path / "fresh", predict=predict)
    assert run_everything(fresh)
    assert_same(everything(changed), everything(fresh))


def test_where_and_how_it_is_viewed_or_run_makes_nothing_stale(tmp_path: Path, undisturbed: Run) -> None:
    shutil.copytree(undisturbed.directory, tmp_path / "copy")
    changed = make_run(
        tmp_path / "copy",
        fragments=FRAGMENTS,
        cluster={"executor": "local", "workers": 7, "retries": 9, "block_timeout": 7.0},
        view={"port": 9999},
        evaluate={"minimum_size": 3},
    )
    assert run_everything(changed)
