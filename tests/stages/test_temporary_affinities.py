"""Affinities that are dropped when they were used: less disk, the same bits, and no more work."""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bucket_server import bucket_server
from funlib.geometry import Coordinate
from slurm_cluster import SlurmCluster
from storage_counts import WRITES, count_chunks, counted
from temporary_run import BLOCKS, LAYERS, blocks_done, results, stored_affinities, temporary_run
from voronoi_run import assert_same

from pipeline.engine.blocks.grid import BlockGrid
from pipeline.engine.blocks.stage import BlockTask
from pipeline.engine.executors import portions
from pipeline.engine.plan import log_plan
from pipeline.run import Run
from pipeline.stages.by_script import (
    agglomerate,
    extract_fragments,
    predict,
    run_chain,
    segment,
    stages_to_run,
)
from pipeline.stages.predict import PredictTask
from pipeline.stages.run_status import read_status
from pipeline.volumes import Box, run_arrays, storage
from pipeline.volumes.locations import Location


@pytest.mark.parametrize("method", ["global", "waterz"])
def test_the_chain_gives_the_same_bits_and_never_has_all_affinities(
    tmp_path: Path, kept: Run, most_stored: list[int], method: str
) -> None:
    agglomeration: dict[str, Any] = {"agglomerate": {"method": method, "context": [1, 6, 6]}}
    run = temporary_run(tmp_path / "run", **agglomeration)
    assert agglomerate(run) and segment(run)
    assert stored_affinities(run) == 0
    assert max(most_stored) <= BLOCKS * 5 / LAYERS
    if method == "waterz":
        kept = temporary_run(tmp_path / "kept", "all", **agglomeration)
        assert run_chain(kept) and segment(kept)
    assert_same(results(run), results(kept))


def test_the_plan_says_how_much_is_there_at_a_time(
    tmp_path: Path, most_stored: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    run = temporary_run(tmp_path)
    tasks = [stage for stage in stages_to_run(run, "agglomerate") if stage.name in ("predict", "fragments", "rag")]
    with caplog.at_level(logging.INFO):
        log_plan(run, stages_to_run(run, "agglomerate"))
    assert "affinities: dropped after use, at most" in caplog.text
    peak = portions.peak_voxels(tasks, PredictTask(run))  # type: ignore[arg-type]
    assert run_chain(run)
    blocks = peak / PredictTask(run).grid.box.size * BLOCKS
    assert max(most_stored) == pytest.approx(blocks, abs=1)


def test_many_layers_need_less_than_a_byte_per_voxel_for_their_affinities(tmp_path: Path) -> None:
    shape = (240, 600, 600)
    run = temporary_run(tmp_path, tile=(12, 60, 60))
    grid = BlockGrid(Box.of_shape(Coordinate(shape)), Coordinate(6, 30, 30), (10, 10, 10), (0, 0, 0))
    tasks = [stage for stage in stages_to_run(run, "agglomerate") if isinstance(stage, BlockTask)][:3]
    affinities = tasks[0]
    assert isinstance(affinities, PredictTask)
    for task in (*tasks, *affinities.temporary_for):
        for stage in (task, *task.upstream):
            vars(stage)["chunk_grid"] = grid
            vars(stage)["grid"] = grid.merged(Coordinate(2, 2, 2)) if isinstance(stage, PredictTask) else grid
    assert 3 * portions.peak_voxels(tasks, affinities) < grid.box.size


def test_by_separate_commands_affinities_are_dropped_when_the_last_has_read_them(tmp_path: Path, kept: Run) -> None:
    run = temporary_run(tmp_path)
    assert predict(run)
    assert extract_fragments(run)
    assert stored_affinities(run) == BLOCKS
    assert agglomerate(run)
    assert stored_affinities(run) == 0
    assert predict(run) and extract_fragments(run) and segment(run)
    assert blocks_done(run, "predict") == 0
    assert_same(results(run), results(kept))


def test_a_run_that_kept_its_affinities_can_drop_them_later(tmp_path: Path) -> None:
    run = temporary_run(tmp_path, "all")
    assert run_chain(run)
    assert agglomerate(temporary_run(tmp_path))
    assert stored_affinities(run) == 0


def test_the_status_says_what_was_dropped(used: Run) -> None:
    used.save_config()
    status = read_status(used, used.directory / "config.json")
    notes = {stage.name: stage.note for stage in status.stages}
    assert notes["predict"] == f"{BLOCKS} of {BLOCKS} files dropped after use"
    assert notes["fragments"] == ""


def test_worker_processes_drop_as_well(tmp_path: Path, kept: Run, most_stored: list[int]) -> None:
    run = temporary_run(tmp_path, tile=(2, 40, 40), cluster={"executor": "local", "workers": 2})
    assert agglomerate(run) and segment(temporary_run(tmp_path, tile=(2, 40, 40)))
    assert stored_affinities(run) == 0
    assert max(most_stored) < BLOCKS
    assert_same(results(run), results(kept))


@pytest.mark.slow
def test_jobs_of_a_cluster_drop_as_well(slurm: SlurmCluster, tmp_path: Path, kept: Run, most_stored: list[int]) -> None:
    cluster = {"executor": "slurm", "workers": 2, "slurm": {"poll": 0.5}}
    run = temporary_run(tmp_path, tile=(2, 40, 40), cluster=cluster)
    assert agglomerate(run) and segment(run)
    assert stored_affinities(run) == 0
    assert max(most_stored) < BLOCKS
    assert_same(results(run), results(kept))


@pytest.mark.slow
def test_objects_of_a_bucket_are_dropped(tmp_path: Path, kept: Run, most_stored: list[int]) -> None:
    with bucket_server("lab"):
        run = temporary_run(tmp_path, storage={"location": "s3://lab/run"})
        assert agglomerate(run) and segment(run)
        assert stored_affinities(run) == 0
        assert max(most_stored) <= BLOCKS * 5 / LAYERS
        assert_same(results(run), results(kept))


def test_dropping_decodes_writes_and_commits_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks, deleted = count_chunks(monkeypatch), list[str]()
    statements = count_transactions(monkeypatch)
    remove = storage.remove_files

    def counted_removal(location: Location, names: Sequence[str]) -> None:
        deleted.extend(names)
        remove(location, names)

    monkeypatch.setattr(run_arrays, "remove_files", counted_removal)
    found = {}
    for keep in ("all", "until_used"):
        before = counted(WRITES)
        for counts in (chunks, statements):
            counts.clear()
        assert run_chain(temporary_run(tmp_path / keep, keep))
        decoded = {name: count for name, count in chunks.items() if name != "raw"}
        found[keep] = (decoded, counted(WRITES) - before, statements["BEGIN"])
    assert found["all"] == found["until_used"]
    in_sight = 4 * 4 * (LAYERS * 3 - 2)  # of each of four blocks of a layer, all four of its layer and of the next
    assert found["all"][0]["affinities"] == BLOCKS + in_sight + BLOCKS, "written and compared, fragments, graph"
    assert sorted(deleted) == sorted(set(deleted))
    assert len(deleted) == BLOCKS


def count_transactions(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Transactions of SQLite that are begun."""
    counts: Counter[str] = Counter()
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.set_trace_callback(lambda statement: counts.update(statement.split()[:1]))
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return counts
