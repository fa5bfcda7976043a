"""What the status says of a run is so, whatever state the run is in; and looking changes and computes nothing."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from funlib.geometry import Coordinate
from run_files import shard_of, shards_of
from status_runs import another_was_the_driver, driver_at_work, look, mark_done, stage_of
from voronoi_run import make_run, store_affinities

from pipeline.command_names import goes_on_by_itself
from pipeline.engine.blocks.empty_blocks import EMPTY, OCCUPIED, UNKNOWN, _path, _write
from pipeline.engine.blocks.grid import BlockGrid
from pipeline.engine.status import DriverState, History, StageState, WorkerState
from pipeline.engine.tracking.driver_lock import only_driver
from pipeline.engine.tracking.failures import end_early
from pipeline.engine.tracking.progress import begin
from pipeline.engine.tracking.worker_records import open_worker_record
from pipeline.run import Run, read_json
from pipeline.stages.agglomerate import agglomeration
from pipeline.stages.by_script import agglomerate, extract_fragments, segment
from pipeline.stages.predict import PredictTask
from pipeline.stages.run_status import read_status

BLOCKS = 2 * 3 * 3


def states(run: Run) -> list[StageState]:
    return [stage.state for stage in look(run).stages]


def test_a_run_that_has_not_begun_is_told_so_and_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    status = look(run)
    assert {stage.state for stage in status.stages} == {StageState.NOT_BEGUN}
    assert status.driver.state is DriverState.NONE
    assert not status.is_over
    assert status.command == "python workflows/02_predict_blockwise.py config.json"
    assert not (tmp_path / "run").exists()


def test_a_missing_checkpoint_is_a_reason_and_no_crash(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    shutil.rmtree(tmp_path / "student")
    store_nothing = look(run)
    assert {stage.state for stage in store_nothing.stages} == {StageState.NOT_BEGUN}
    run_with_output = make_run(tmp_path / "other")
    begin(PredictTask(run_with_output))
    (run_with_output.tracking / "predict.json").unlink()
    shutil.rmtree(tmp_path / "other" / "student")
    predict = stage_of(look(run_with_output), "predict")
    assert predict.state is StageState.NOT_BEGUN
    assert "there is no checkpoint" in predict.note


def test_a_finished_chain_tells_what_it_took_and_where_the_segmentation_lies(tmp_path: Path) -> None:
    run = make_run(tmp_path, segment={"thresholds": [0.3]})
    run.save_config()
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    status = look(run)
    assert status.is_done and status.is_over and status.command == ""
    agglomeration, certainty = (1, 1), (1, 1)
    counted = [(BLOCKS, BLOCKS)] * 3 + [agglomeration, (BLOCKS, BLOCKS), certainty]
    assert [(stage.done, stage.blocks) for stage in status.stages] == counted
    segmentation = stage_of(status, "segment_0.30")
    assert segmentation.output == str(run.volume / "segmentation" / "0.30")
    told = read_json(run.summary)["stages"]["segment"]
    assert (segmentation.took, segmentation.peak_memory) == (told["seconds"], told["peak_worker_memory"])


def test_a_failed_block_is_counted_and_shown_with_its_place(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.save_config()
    store_affinities(run)
    shard_of(run, "affinities", 0, 0, 0).unlink()
    assert not extract_fragments(run)
    status = look(run)
    fragments = stage_of(status, "fragments")
    assert fragments.state is StageState.FAILED
    assert (fragments.done, fragments.failed, fragments.left) == (BLOCKS - 8, 8, 0)  # the neighbours read the chunk
    assert len(status.failures) == 3
    assert all("affinities: shard c/0/0/0/0 is missing" in failure.error for failure in status.failures)
    assert all("nm (voxels" in failure.description for failure in status.failures)
    assert all("workflows/07_view.py" in failure.description for failure in status.failures)
    assert status.command == f"python workflows/03_extract_fragments.py {run.directory / 'config.json'}"
    with goes_on_by_itself():  # as run_all.py does
        assert not extract_fragments(run)
    assert look(run).command == f"python workflows/run_all.py {run.directory / 'config.json'}"


def test_changed_settings_show_as_stale_with_what_changed(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    store_affinities(run)
    assert extract_fragments(run)
    changed = make_run(tmp_path, fragments={"seed_distance": 4})
    fragments = stage_of(look(changed), "fragments")
    assert (fragments.state, fragments.note) == (StageState.STALE, "changed: fragments.seed_distance")
    assert look(changed).command.endswith("--overwrite")


def test_stages_that_run_together_are_told_apart_by_who_waits(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with driver_at_work(run, seconds=100) as (predict, _):
        mark_done(predict, 6)
        worker = open_worker_record(predict, "0", job="77", log="/logs/77")
        worker.begin(6)
        status = look(run)
        assert status.driver.state is DriverState.WORKS
        assert not status.is_over and status.command == ""
        assert [stage.state for stage in status.stages[:3]] == [
            StageState.RUNNING,
            StageState.WAITING,
            StageState.NOT_BEGUN,
        ]
        assert status.stages[1].note == ""  # it needs no worker yet
        running = status.stages[0]
        assert (running.done, running.running, running.left) == (6, 1, BLOCKS - 7)
        assert running.pace is not None
        assert running.pace.blocks == pytest.approx(0.06, rel=0.1)
        assert running.pace.seconds_left == pytest.approx(200, rel=0.1)
        assert [(w.state, w.block, w.job, w.log) for w in status.workers] == [(WorkerState.BUSY, 6, "77", "/logs/77")]
    assert look(run).driver.state is DriverState.GONE
    assert states(run)[:2] == [StageState.STOPPED, StageState.STOPPED]


def test_a_stage_waits_at_least_as_long_as_the_one_it_reads(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with driver_at_work(run, seconds=100) as (predict, fragments):
        mark_done(predict, 2)
        mark_done(fragments, 1)
        status = look(run)
        first, second = stage_of(status, "predict").pace, stage_of(status, "fragments").pace
        assert first is not None and second is not None
        assert first.end is not None and second.end is not None
        mark_done(fragments, 12)
        second = stage_of(look(run), "fragments").pace
        assert second is not None and second.end is not None
        assert second.end >= first.end - 5


def test_what_a_killed_driver_left_is_told_from_what_runs_and_how_to_go_on(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.save_config()
    with driver_at_work(run) as (predict, _):
        open_worker_record(predict, "0").begin(3)
    another_was_the_driver(run)
    status = look(run)
    assert status.workers[0].state is WorkerState.ORPHANED
    assert stage_of(status, "predict").running == 0
    assert status.is_over
    assert status.command == f"python workflows/02_predict_blockwise.py {run.directory / 'config.json'}"


def test_a_killed_worker_is_seen_while_its_driver_works(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with driver_at_work(run) as (predict, _):
        open_worker_record(predict, "0").begin(3)
        worker = multiprocessing.get_context("fork").Process(target=lambda: open_worker_record(predict, "1").begin(4))
        worker.start()
        worker.join()
        workers = look(run).workers
        assert [(w.worker, w.state, w.block) for w in workers] == [
            ("1", WorkerState.DIED, 4),
            ("0", WorkerState.BUSY, 3),
        ]
        assert stage_of(look(run), "predict").running == 1


def test_every_block_that_a_worker_has_under_way_counts(tmp_path: Path) -> None:
    with driver_at_work(run := make_run(tmp_path)) as (predict, _):
        worker = open_worker_record(predict, "0")
        for block in (6, 8, 7):
            worker.begin(block)
        status = look(run)
        assert stage_of(status, "predict").running == 3
        assert [(w.block, w.blocks) for w in status.workers] == [(6, (6, 8, 7))]


def test_another_process_in_the_run_directory_is_not_taken_for_the_driver_of_old(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with driver_at_work(run):
        pass
    another_was_the_driver(run)
    with only_driver(run):  # an audit, say: it begins no stage
        status = look(run)
        assert (status.driver.state, status.driver.process) == (DriverState.WORKS, os.getpid())
        assert stage_of(status, "predict").state is StageState.STOPPED


def test_a_stage_that_ended_early_says_why(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with driver_at_work(run) as (predict, _):
        end_early(predict, "block 3: no room is left")
        assert (states(run)[0], stage_of(look(run), "predict").note) == (StageState.RUNNING, "block 3: no room is left")
    assert (states(run)[0], stage_of(look(run), "predict").note) == (StageState.FAILED, "block 3: no room is left")


def test_the_one_computation_of_the_global_agglomeration_shows_as_running(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run)
    with only_driver(run):
        begin(agglomeration(run))
        assert stage_of(look(run), "agglomerate").state is StageState.RUNNING
    assert stage_of(look(run), "agglomerate").state is StageState.STOPPED


def test_empty_blocks_are_not_sought_and_half_an_answer_counts(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for shard in shards_of(run, "raw"):
        shard.unlink()  # a look at raw would fail
    with driver_at_work(run) as (predict, _):
        assert (stage_of(look(run), "predict").empty, stage_of(look(run), "predict").note) == (
            0,
            "looks for empty blocks",
        )
        known = np.full(BLOCKS, UNKNOWN, dtype=np.uint8)
        known[:5], known[5:8] = EMPTY, OCCUPIED
        _write(_path(run, predict.grid), known)
        mark_done(predict, 7)
        status = stage_of(look(run), "predict")
        assert (status.empty, status.done, status.left) == (5, 2, BLOCKS - 7)


def test_no_database_is_asked(tmp_path: Path) -> None:
    run = make_run(tmp_path, rag={"url": "postgresql://nobody@127.0.0.1:1/nothing"})
    store_affinities(run)
    assert stage_of(look(run), "rag").state is StageState.NOT_BEGUN


def test_a_graph_that_was_deleted_is_not_called_done(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run)
    (tmp_path / "rag.sqlite").unlink()
    assert {stage_of(look(run), name).state for name in ("rag", "agglomerate")} == {StageState.NOT_BEGUN}


def test_a_driver_that_lives_between_two_stages_is_not_called_gone(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    store_affinities(run)
    assert extract_fragments(run)
    status = look(run)  # this process may go on with the next stage
    assert status.driver.state is DriverState.BETWEEN
    assert not status.is_over
    another_was_the_driver(run)
    status = look(run)
    assert status.driver.state is DriverState.GONE
    assert status.driver.ended is not None
    assert status.is_over


def test_the_best_threshold_is_not_computed_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.best_threshold", lambda run: pytest.fail("a look computed the sweep"))
    run = make_run(tmp_path, segment={"thresholds": "best"})
    assert look(run).stages[-1].state is StageState.NOT_BEGUN
    assert not look(run).is_done


def test_a_million_blocks_are_counted_without_visiting_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Coordinate(100, 100, 100)
    run = make_run(tmp_path, predict={"block_size": [1, 1, 1]}, fragments={"context": [0, 0, 0]})
    monkeypatch.setattr(BlockGrid, "shape", property(lambda grid: shape))
    with driver_at_work(run, seconds=1000) as (predict, _):
        mark_done(predict, 400_000)
        _write(_path(run, predict.grid), np.repeat(np.array([OCCUPIED, EMPTY], dtype=np.uint8), [700_000, 300_000]))
        for worker in range(100):
            open_worker_record(predict, str(worker)).begin(400_000 + worker)
        monkeypatch.setattr(BlockGrid, "block", lambda grid, index: pytest.fail("a look at a single block"))
        status = look(run)
        first = stage_of(status, "predict")
        assert (first.blocks, first.done, first.empty, first.running) == (1_000_000, 400_000, 300_000, 100)
        assert first.left == 299_900
        assert len(status.workers) == 100


def test_whoever_watches_learns_the_pace_of_the_last_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, history = make_run(tmp_path), History()
    now = [1e9]
    monkeypatch.setattr("pipeline.engine.status.read_run.clock.time", lambda: now[0])
    with driver_at_work(run, seconds=1000) as (predict, _):
        began = look_at_clock(run)
        for seconds, done in ((1000, 1), (1060, 4), (1120, 10)):
            now[0] = began + seconds
            mark_done(predict, done)
            status = read_status(run, Path("config.json"), history)
    pace = stage_of(status, "predict").pace
    assert pace is not None
    assert pace.recent_blocks == pytest.approx(9 / 120)
    assert pace.blocks == pytest.approx(10 / 1120)
    assert pace.seconds_left == pytest.approx((BLOCKS - 10) / (9 / 120))


def look_at_clock(run: Run) -> float:
    """When the driver says that it began."""
    return float(read_json(run.tracking / "driver.json")["began"])
