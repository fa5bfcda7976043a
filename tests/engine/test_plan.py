"""What a plan and a pilot tell: sums over blocks as if each had been looked at, and predictions from real blocks."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import numpy as np
import pytest
from funlib.geometry import Coordinate
from toy_tasks import Doubled, visits
from toy_tasks import make_run as make_toy_run
from voronoi_run import make_run, store_affinities, stored

from pipeline.engine.blocks.grid import Block
from pipeline.engine.blocks.stage import BlockTask
from pipeline.engine.chain import run_stages
from pipeline.engine.pilot import Pilot, WorkerCost, log_pilots, report, run_pilot, spread_blocks
from pipeline.engine.plan import context_overhead, decoded_voxels, log_plan
from pipeline.engine.tracking.progress import Progress, begin, progress_of
from pipeline.stages.by_script import extract_fragments, fragment_stages, prediction_stages
from pipeline.stages.fragments import FragmentsTask
from pipeline.stages.predict import PredictTask
from pipeline.units import disk_size
from pipeline.volumes import Box, open_volume


@pytest.mark.parametrize("task_type", [PredictTask, FragmentsTask])
def test_sums_over_blocks_are_those_of_all_blocks(tmp_path: Path, task_type: type[BlockTask]) -> None:
    task = task_type(make_run(tmp_path))
    read = task.reader()
    boxes = [read(block) for block in task.grid]
    assert context_overhead(task) == pytest.approx(sum(box.size for box in boxes) / task.grid.box.size)
    shape, chunks = Coordinate(9, 42, 38), Coordinate(4, 16, 16)
    every = itertools.product(*(range(-(-e // c)) for e, c in zip(shape, chunks, strict=True)))
    starts = [np.array(position) * chunks for position in every]
    decoded = 0
    for box in boxes:
        for start in starts:
            low, high = np.maximum(start, box.begin), np.minimum(np.minimum(start + chunks, shape), box.end)
            decoded += int(np.prod(chunks)) * bool((low < high).all())
    assert decoded_voxels(task.grid, read, shape, chunks) == decoded


def test_a_plan_counts_bytes_and_files_and_warns_of_a_full_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    caplog.set_level(logging.INFO)
    log_plan(run, prediction_stages(run))
    voxels = 8 * 40 * 35
    assert f"affinities: {3 * voxels / 1000:.1f} kB before compression" in caplog.text
    assert "18 shards, one per block" in caplog.text
    assert "IT MAY NOT FIT" not in caplog.text
    free = type("Usage", (), {"free": 3 * voxels - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    log_plan(run, prediction_stages(run))
    assert "IT MAY NOT FIT" in caplog.text
    assert not (run.volume / "affinities").file.exists()


def test_a_plan_counts_only_the_blocks_that_are_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_toy_run(tmp_path)
    (tmp_path / "raise").write_text("5")
    assert not run_stages(run, [Doubled(run)], False)
    caplog.set_level(logging.INFO)
    log_plan(run, [Doubled(run)])
    left = np.prod(Doubled(run).grid.block_size) * Doubled(run).bytes_per_voxel
    assert f"disk: at most {disk_size(int(left))} of arrays to write" in caplog.text


def test_a_plan_says_how_many_jobs_there_will_be_and_what_they_ask_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = {"partition": "gpu", "gpus": 1, "cpus": 4, "memory": "16G", "workers": 4}
    slurm = {"time": "2:00:00", "stages": {"predict": gpu}}
    run = make_run(tmp_path, cluster={"executor": "slurm", "workers": 64, "threads_per_worker": 2, "slurm": slurm})
    caplog.set_level(logging.INFO)
    log_plan(run, [*prediction_stages(run), *fragment_stages(run)])
    lines = [record.message.split(None, 1) for record in caplog.records]
    jobs = [text for name, text in lines if name == "jobs"]
    assert jobs[0] == "up to 4 at a time: partition gpu, 1 GPU, 4 CPUs, memory 16G, time 2:00:00"
    left_open = "partition as the cluster's default, memory as the cluster's default"
    assert f"up to 18 at a time: 2 CPUs, time 2:00:00, {left_open}" in jobs, "of 18 blocks no more than 18"


def test_a_plan_of_local_workers_names_no_jobs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path, cluster={"executor": "local", "slurm": {"partition": "gpu"}})
    caplog.set_level(logging.INFO)
    log_plan(run, prediction_stages(run))
    assert "jobs" not in caplog.text and "partition" not in caplog.text


def test_the_plan_of_a_petabyte_takes_no_pass_over_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = FragmentsTask(make_run(tmp_path))
    monkeypatch.setattr(type(task.grid), "__iter__", lambda grid: pytest.fail("the plan looked at every block"))
    asked: list[int] = []
    read = task.reader()

    def noted(block: Block) -> Box:
        asked.append(block.index)
        return read(block)

    context_overhead(task, noted)
    assert len(asked) == sum(task.grid.shape)


def test_a_pilot_computes_real_blocks_and_the_run_afterwards_all_of_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path, cluster={"executor": "local", "workers": 2})
    store_affinities(run)
    caplog.set_level(logging.INFO)
    log_pilots(run, fragment_stages(run), 2, overwrite=False)
    assert "18 blocks with 2 workers: about" in caplog.text
    assert progress_of(FragmentsTask(run)) is Progress.STARTED
    tried = stored(run, "fragments")
    assert 0 < len(np.unique(tried[tried > 0] // np.uint64(4 * 16 * 16))) <= 5
    assert extract_fragments(run)
    complete = stored(run, "fragments")
    assert (complete > 0).mean() > 0.5
    np.testing.assert_array_equal(tried[tried > 0], complete[tried > 0])


def test_a_pilot_touches_neither_blocks_that_are_done_nor_empty_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A kill in the middle would cost a done block its chunk; an empty one is 0 by definition."""
    run = make_toy_run(tmp_path)
    raw = open_volume(run.volume, "raw", "r+")
    values = raw.read(raw.box)
    values[Doubled(run).grid.to_source(Doubled(run).grid.block(0).box).slices] = 0
    raw.write(raw.box, values)
    (tmp_path / "raise").write_text("5")
    assert not run_stages(run, [Doubled(run)], False)
    before = visits(tmp_path)
    caplog.set_level(logging.INFO)
    (tmp_path / "raise").unlink()
    log_pilots(run, [Doubled(run)], 4, overwrite=False)
    assert visits(tmp_path) == {**before, 5: before[5] + 1}
    assert 0 not in visits(tmp_path)
    assert "1 block with 1 worker: about" in caplog.text


def test_a_stage_without_inputs_is_not_tried(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path)
    caplog.set_level(logging.INFO)
    log_pilots(run, [*prediction_stages(run), *fragment_stages(run)], 1, overwrite=False)
    assert "predict: a block takes" in caplog.text
    assert "fragments: cannot be tried before its inputs are there" in caplog.text


def test_a_pilot_predicts_from_warm_blocks_and_counts_the_start_once(tmp_path: Path) -> None:
    """18 blocks, two workers: 2 s to start, 3 s more for the first block, then a second per 1000 voxels."""
    task = FragmentsTask(make_run(tmp_path))
    cost = WorkerCost(2.0, (1000, 1000, 2000), (4.0, 1.0, 2.0), 5)
    pilot = Pilot(task, (cost, cost), 18 * 1000, 18)
    assert pilot.start_seconds == pytest.approx(5.0)
    assert pilot.predicted_seconds() == pytest.approx((14.0, 14.0, 14.0))
    uneven = Pilot(task, (cost, WorkerCost(2.0, (1000, 1000, 2000), (4.0, 1.5, 2.0), 9)), 18 * 1000, 18)
    expected, low, high = uneven.predicted_seconds()
    assert low < expected < high
    assert uneven.peak_memory == 9


def test_blocks_near_the_timeout_are_pointed_out(tmp_path: Path) -> None:
    task = FragmentsTask(make_run(tmp_path, cluster={"block_timeout": 5.0}))
    cost = WorkerCost(2.0, (1000, 1000), (4.0, 1.0), 5)
    assert "80% of cluster.block_timeout (5 s)" in report(Pilot(task, (cost,), 18 * 1000, 18))[-1]
    calm = FragmentsTask(make_run(tmp_path, cluster={"block_timeout": 50.0}))
    assert not any("block_timeout" in line for line in report(Pilot(calm, (cost,), 18 * 1000, 18)))


def test_the_blocks_of_a_pilot_come_from_everywhere() -> None:
    assert sorted(spread_blocks(100, 4)) == [12, 37, 62, 87]
    assert sorted(spread_blocks(3, 8)) == [0, 1, 2]


def test_a_pilot_says_what_a_block_needs(tmp_path: Path) -> None:
    task = FragmentsTask(run := make_run(tmp_path))
    store_affinities(run)
    begin(task)
    pilot = run_pilot(task, np.arange(len(task.grid)), 2)
    assert pilot.workers == 1  # the serial executor
    assert pilot.peak_memory > 20 << 20
    assert pilot.read_voxels == pytest.approx(context_overhead(task) * task.grid.box.size)


def test_a_plan_warns_where_fragments_reach_across_sections_of_anisotropic_voxels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log_plan(make_run(tmp_path / "across"), fragment_stages(make_run(tmp_path / "across")))
    assert [line for line in caplog.messages if "fragments.in_plane true" in line]
    caplog.clear()
    within = make_run(tmp_path / "within", fragments={"in_plane": True})
    log_plan(within, fragment_stages(within))
    assert not [line for line in caplog.messages if "in_plane" in line]
