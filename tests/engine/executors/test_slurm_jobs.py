"""How jobs of a real SLURM are asked for, refused, and find their driver."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster
from slurm_runs import (
    assert_undisturbed,
    crowded,
    driver,
    finish,
    job_at,
    jobs_of,
    middle_of_block,
    nothing_is_left,
    slurm_run,
)
from toy_tasks import Doubled, visits, wait_until

from pipeline.engine.executors.add_workers import add_workers
from pipeline.engine.tracking.worker_records import worker_records
from pipeline.errors import UserError
from pipeline.run import Run


def files_of(run: Run) -> set[Path]:
    return set(run.directory.rglob("*"))


def test_one_worker_is_enough_and_jobs_that_never_started_are_cancelled(slurm: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path, workers=3)
    with crowded(slurm):
        assert finish(run)
    assert_undisturbed(slurm, run)
    assert any(job.node == "" for job in jobs_of(slurm, run))


def test_a_refused_job_is_one_line_before_anything_is_done(slurm: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path, {"stages": {"predict": {"memory": "1G"}}, "partition": "nowhere"})
    before = files_of(run)
    with pytest.raises(UserError, match=r"SLURM refuses the jobs of doubled: .*nowhere") as caught:
        finish(run)
    assert caught.value.where == "cluster.slurm"
    assert files_of(run) == before and not jobs_of(slurm, run)


def test_an_address_that_this_machine_has_not_writes_nothing(slurm: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path, {"address": "10.99.0.0/16"})
    before = files_of(run)
    with pytest.raises(UserError, match=r"this machine has no address in 10\.99\.0\.0/16") as caught:
        finish(run)
    assert caught.value.where == "cluster.slurm.address"
    assert files_of(run) == before and not jobs_of(slurm, run)


def test_a_machine_without_slurm_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = slurm_run(tmp_path / "run")
    before = files_of(run)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="squeue is not on the PATH; run where jobs can be submitted from") as caught:
        finish(run)
    assert caught.value.where == "cluster.executor"
    assert files_of(run) == before


def test_a_broken_setup_ends_the_stage_with_its_own_words(
    slurm: SlurmCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = slurm_run(tmp_path, {"setup": ["echo no such module; false"]})
    with caplog.at_level(logging.ERROR):
        assert not finish(run)
    assert "no worker could begin: " in caplog.text and "no such module" in caplog.text
    wait_until(lambda: nothing_is_left(slurm, run))


def test_a_worker_killed_for_memory_says_how_much_it_asked_for(
    slurm_memory_limits: SlurmCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = slurm_run(tmp_path, {"memory": "700M"}, retries=0)
    (tmp_path / "hog").write_text("3")
    with caplog.at_level(logging.ERROR):
        assert not finish(run)
    assert "doubled: 1 of 12 blocks failed" in caplog.text
    assert "was killed for memory; it had asked for 700M (cluster.slurm.memory)" in caplog.text


def test_workers_on_other_machines_find_the_driver(slurm_namespaces: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path)
    assert finish(run)
    assert_undisturbed(slurm_namespaces, run)


def test_workers_that_cannot_reach_the_driver_say_where_they_tried(
    slurm_namespaces: SlurmCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = slurm_run(tmp_path, {"address": "127.0.0.1"})
    with caplog.at_level(logging.ERROR):
        assert not finish(run)
    assert "cannot reach the driver at 127.0.0.1:" in caplog.text
    assert "cluster.slurm.address" in caplog.text
    assert not visits(tmp_path)


def test_jobs_can_join_while_a_run_goes_on(slurm: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path, workers=1)
    go = middle_of_block(run, 3)
    with driver(run) as process:
        job_at(slurm, run, 3)
        assert add_workers(run, 1, "doubled")
        wait_until(lambda: visits(tmp_path).keys() >= set(range(len(Doubled(run).grid))))
        go.touch()
        process.join()
        assert process.exitcode == 0
    assert_undisturbed(slurm, run)
    done = {record.worker: record.done for record in worker_records(Doubled(run))}
    added = [worker for worker in done if worker.startswith("added-")]
    assert len(added) == 1 and done[added[0]] + done["0"] == len(Doubled(run).grid)
