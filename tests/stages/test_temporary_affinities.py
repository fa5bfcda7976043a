"""Affinities that are dropped when they were used: less disk, the same bits, and made again when they are needed."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bucket_server import bucket_server
from funlib.geometry import Coordinate
from run_files import shard_of
from slurm_cluster import SlurmCluster
from storage_counts import WRITES, count_chunks, counted
from voronoi_run import assert_same, everything, make_run

from pipeline.engine.audit.arrays import Damage
from pipeline.engine.audit.requeue import requeue
from pipeline.engine.blocks.grid import BlockGrid
from pipeline.engine.blocks.stage import BlockTask
from pipeline.engine.executors import portions, proving
from pipeline.engine.plan import log_plan
from pipeline.engine.tracking import temporary
from pipeline.errors import UserError
from pipeline.run import Run, read_json
from pipeline.stages.auditing import audit
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
from pipeline.viewer.layers import existing_layers
from pipeline.volumes import Box, run_arrays, storage
from pipeline.volumes.locations import Location

LAYERS, BLOCKS = 8, 8 * 2 * 2
ENDS = (0.0, 0.5, 1.0)
"""Shares of the files to be dropped after which the driver ends."""


def temporary_run(
    directory: Path,
    keep: str = "until_used",
    seed_distance: int = 3,
    tile: tuple[int, ...] = (1, 40, 20),
    **sections: Any,
) -> Run:
    """A run of eight layers of blocks, of which affinities are temporary."""
    return make_run(
        directory,
        predict={"block_size": [1, 20, 20], "tile_size": list(tile), "keep_affinities": keep},
        fragments={"context": [1, 6, 6], "seed_distance": seed_distance, "boundary_threshold": 0.98},
        **{"segment": {"thresholds": [0.3]}, **sections},
    )


def stored_affinities(run: Run) -> int:
    """Files of affinities that are there."""
    return int(PredictTask(run).open().array.present().sum())


def results(run: Run) -> dict[str, np.ndarray]:
    """All that the stages wrote, but for the affinities."""
    found = everything(run)
    del found["affinities"]
    return found


def blocks_done(run: Run, stage: str) -> int:
    return int(read_json(run.summary)["stages"][stage]["blocks_done"])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = temporary_run(tmp_path_factory.mktemp("kept"), "all")
    assert run_chain(run) and segment(run)
    return run


@pytest.fixture(scope="module")
def used_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of which all is done, and all affinities dropped; to be copied."""
    run = temporary_run(tmp_path_factory.mktemp("used") / "used")
    assert agglomerate(run) and segment(run)
    assert stored_affinities(run) == 0
    return run.directory


@pytest.fixture
def used(tmp_path: Path, used_directory: Path) -> Run:
    """All done, and all affinities dropped."""
    shutil.copytree(used_directory, tmp_path / "used")
    return temporary_run(tmp_path / "used")


@pytest.fixture
def most_stored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files of affinities there were at a time: before each time that some are dropped."""
    counts: list[int] = []
    drop = temporary.drop_used

    def counted(task: Any) -> int:
        counts.append(int(task.open().array.present().sum()))
        return drop(task)

    monkeypatch.setattr(proving, "drop_used", counted)
    return counts


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


def test_what_a_stale_stage_needs_is_made_again(tmp_path: Path, used: Run) -> None:
    changed = temporary_run(used.directory, seed_distance=2)
    with pytest.raises(UserError, match=r"stale: fragments \(changed: fragments.seed_distance\)"):
        extract_fragments(changed)
    assert blocks_done(used, "predict") == BLOCKS / 2
    assert extract_fragments(changed, overwrite=True)
    assert stored_affinities(changed) == BLOCKS
    assert agglomerate(changed, overwrite=True) and segment(changed, overwrite=True)
    assert stored_affinities(changed) == 0
    fresh = temporary_run(tmp_path / "fresh", "all", seed_distance=2)
    assert run_chain(fresh) and segment(fresh)
    assert_same(results(changed), results(fresh))


def test_the_audit_knows_what_was_dropped_and_mends_with_what_that_needs(kept: Run, used: Run) -> None:
    findings = audit(used)
    assert all(found.sound for found in findings)
    assert {found.stage.name: found.dropped for found in findings if found.dropped} == {"predict": BLOCKS // 2}
    shard_of(used, "fragments", 0, 1, 1).unlink()
    findings = audit(used)
    assert [found.stage.name for found in findings if found.count(Damage.MISSING)] == ["fragments"]
    requeue(findings)
    assert agglomerate(used) and segment(used)
    assert blocks_done(used, "fragments") == 1
    assert 0 < blocks_done(used, "predict") < BLOCKS / 4, "what the fragments and the graph around them read"
    assert all(found.sound for found in audit(used))
    assert_same(results(used), results(kept))


def test_affinities_that_are_lost_before_they_were_used_are_a_loss(tmp_path: Path) -> None:
    run = temporary_run(tmp_path)
    assert predict(run)
    shard_of(run, "affinities", 0, 1, 1).unlink()
    assert [found.stage.name for found in audit(run) if found.count(Damage.MISSING)] == ["predict"]


def test_who_keeps_them_after_all_gets_them_back(kept: Run, used: Run) -> None:
    assert "affinities" not in [layer.name for layer in existing_layers(used)]
    run = temporary_run(used.directory, "all")
    assert all(found.sound for found in audit(run))
    assert predict(run)
    assert_same(everything(run), everything(kept))
    assert "affinities" in [layer.name for layer in existing_layers(run)]
    assert not any(found.dropped for found in audit(run))


def test_a_checkpoint_that_is_gone_is_told_before_anything_is_made_stale(used: Run) -> None:
    for checkpoint in used.network_directory("student").glob("*.pt"):
        checkpoint.unlink()
    assert agglomerate(used) and segment(used)
    before = results(used)
    with pytest.raises(UserError, match="checkpoint"):
        agglomerate(temporary_run(used.directory, seed_distance=2), overwrite=True)
    assert_same(results(used), before)


def test_the_status_says_what_was_dropped(used: Run) -> None:
    used.save_config()
    status = read_status(used, used.directory / "config.json")
    notes = {stage.name: stage.note for stage in status.stages}
    assert notes["predict"] == f"{BLOCKS} of {BLOCKS} files dropped after use"
    assert notes["fragments"] == ""


def test_a_failing_block_keeps_what_it_needs(tmp_path: Path, kept: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what does not wait for it is done, in later portions too."""
    from pipeline.stages import fragments

    whole = fragments.fragment_block
    monkeypatch.setattr(fragments, "fragment_block", failing_at(whole, block=BLOCKS // 2))
    run = temporary_run(tmp_path)
    assert not agglomerate(run)
    assert 0 < stored_affinities(run) < BLOCKS
    assert blocks_done(run, "fragments") == BLOCKS - 1
    monkeypatch.setattr(fragments, "fragment_block", whole)
    assert agglomerate(run) and segment(run)
    assert blocks_done(run, "predict") == 0, "nothing that was needed had been dropped"
    assert stored_affinities(run) == 0
    assert_same(results(run), results(kept))


def failing_at(whole: Any, block: int) -> Any:
    """`fragment_block`, but for one block an error."""
    voxels = 1 * 20 * 20

    def broken(affinities: Any, box: Any, first_id: int, *rest: Any) -> Any:
        if first_id == block * voxels + 1:
            raise ValueError("as asked")
        return whole(affinities, box, first_id, *rest)

    return broken


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


def test_an_end_in_the_middle_of_dropping_loses_nothing(
    tmp_path: Path, kept: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first, in the middle, and after the last of the files, each time that some are dropped."""
    remove, times = storage.remove_files, Counter[str]()

    def broken_off(location: Location, names: Sequence[str]) -> None:
        times.update(["ends"])
        if times["ends"] <= len(ENDS):
            remove(location, names[: round(len(names) * ENDS[times["ends"] - 1])])
            raise KeyboardInterrupt
        remove(location, names)

    monkeypatch.setattr(run_arrays, "remove_files", broken_off)
    for _ in ENDS:
        with pytest.raises(KeyboardInterrupt):
            agglomerate(temporary_run(tmp_path))
    run = temporary_run(tmp_path)
    assert agglomerate(run) and segment(run)
    assert stored_affinities(run) == 0
    assert_same(results(run), results(kept))


def test_an_end_while_markers_are_taken_back_loses_nothing(
    tmp_path: Path, used: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(task: BlockTask, blocks: np.ndarray) -> None:
        task.records.take_back(blocks)
        raise KeyboardInterrupt

    changed = temporary_run(used.directory, seed_distance=2)
    with monkeypatch.context() as patch:
        patch.setattr(temporary, "unmark_blocks", broken_off)
        with pytest.raises(KeyboardInterrupt):
            agglomerate(changed, overwrite=True)
    assert agglomerate(changed, overwrite=True) and segment(changed, overwrite=True)
    fresh = temporary_run(tmp_path / "fresh", "all", seed_distance=2)
    assert run_chain(fresh) and segment(fresh)
    assert_same(results(changed), results(fresh))


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
