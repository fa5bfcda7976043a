"""Workers as jobs of a real SLURM: whatever ends them, the result is that of an undisturbed run, and no job is left."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
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
from toy_tasks import Doubled, make_run, visits, wait_until

from pipeline.engine.executors import hung_workers
from pipeline.engine.executors.slurm_jobs import job_prefix
from pipeline.engine.tracking.worker_records import worker_records
from pipeline.run import Run


def cancel_busy_jobs(cluster: SlurmCluster, run: Run, count: int) -> None:
    """Cancel job after job of a run, each in the middle of a block."""
    cancelled: set[str | None] = set()
    while len(cancelled) < count:
        busy = {record.job for record in worker_records(Doubled(run)) if record.block is not None} - cancelled
        for job in busy:
            cluster.call("scancel", str(job))
        cancelled |= busy
        time.sleep(0.05)


def test_jobs_give_what_an_undisturbed_run_gives(slurm: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path)
    assert finish(run)
    assert_undisturbed(slurm, run)
    assert set(visits(tmp_path).values()) == {1}
    assert "doubled.w0" in {job.name.removeprefix(job_prefix(run)) for job in jobs_of(slurm, run)}
    records = worker_records(Doubled(run))
    assert {record.host for record in records} <= set(slurm.nodes)
    assert sum(record.done for record in records) == len(Doubled(run).grid)
    assert all(
        record.job is not None and Path(record.log).name == f"worker_{record.worker}_{record.job}.log"
        for record in records
    )
    assert all(Path(record.log).exists() for record in records)


def test_a_cancelled_worker_gives_its_block_back_untried(slurm: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path, retries=0)
    go = middle_of_block(run, 3)
    with driver(run) as process:
        job = job_at(slurm, run, 3)
        slurm.call("scancel", str(job.id))
        slurm.wait_until(lambda: slurm.job(job.id).ended, "the job to end")
        go.touch()
        process.join()
        assert process.exitcode == 0
    assert_undisturbed(slurm, run)
    assert visits(tmp_path)[3] == 2
    assert "left: told to end by the cluster" in {record.state for record in worker_records(Doubled(run))}


def test_a_lost_node_costs_no_try(slurm: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path, retries=0)
    go = middle_of_block(run, 3)
    with driver(run) as process:
        job = job_at(slurm, run, 3)
        slurm.kill_node(job.node)
        go.touch()
        try:
            process.join()
        finally:
            slurm.revive_node(job.node)
        assert process.exitcode == 0
    assert slurm.job(job.id).state == "NODE_FAIL"
    assert_undisturbed(slurm, run)


def test_a_preempted_worker_comes_back(slurm: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path, {"partition": "scavenger"}, retries=0)
    go = middle_of_block(run, 3)
    with driver(run) as process:
        job = job_at(slurm, run, 3)
        urgent = ["--partition=main", "--exclusive", f"--nodelist={job.node}", "--output=/dev/null", "--wrap=sleep 1"]
        slurm.call("sbatch", *urgent)
        slurm.wait_until(lambda: slurm.job(job.id).ended, "the job to be preempted")
        go.touch()
        process.join()
        assert process.exitcode == 0
    assert slurm.job(job.id).state in ("PREEMPTED", "COMPLETED")
    assert_undisturbed(slurm, run)


@pytest.mark.slow
def test_workers_end_before_the_time_limit_and_no_block_is_computed_twice(slurm: SlurmCluster, tmp_path: Path) -> None:
    settings = {"poll": 0.5, "time": "2", "grace": 1}  # SLURM knows limits in minutes only
    cluster = {"executor": "slurm", "workers": 1, "retries": 0, "slurm": settings}
    run = make_run(tmp_path, shape=(5, 10, 9), cluster=cluster)
    blocks = [block.index for block in Doubled(run).grid]
    assert len(blocks) == 4  # of 40 s each: two fit into a job
    (tmp_path / "slow").write_text(" ".join(map(str, blocks)))
    assert finish(run)
    assert_undisturbed(slurm, run)
    assert visits(tmp_path) == dict.fromkeys(blocks, 1)
    states = [job.state for job in jobs_of(slurm, run) if "doubled" in job.name]
    assert states.count("COMPLETED") == 2
    assert set(states) <= {"COMPLETED", "CANCELLED"}  # of the last worker's successor, which found nothing left to do


def test_a_worker_whose_jobs_the_cluster_ends_again_and_again_is_given_up(
    slurm: SlurmCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = slurm_run(tmp_path, {"resubmissions": 1}, workers=1, worker_restarts=0)
    (tmp_path / "hang").write_text(" ".join(str(block.index) for block in Doubled(run).grid))
    canceller = threading.Thread(target=cancel_busy_jobs, args=(slurm, run, 2))
    canceller.start()
    with caplog.at_level(logging.ERROR):
        assert not finish(run)
    canceller.join()
    assert "worker 0 is given up: 2 jobs in a row did no block, the last: left: told to end" in caplog.text
    wait_until(lambda: nothing_is_left(slurm, run))


def test_a_crash_costs_its_block_one_try_and_no_more(slurm: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path, retries=1)
    (tmp_path / "die_once").write_text("3")
    assert finish(run)
    assert_undisturbed(slurm, run)
    assert visits(tmp_path)[3] == 2


def test_a_block_that_kills_every_worker_fails_alone(
    slurm: SlurmCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = slurm_run(tmp_path, retries=1)
    (tmp_path / "die").write_text("3")
    with caplog.at_level(logging.ERROR):
        assert not finish(run)
    assert "doubled: 1 of 12 blocks failed" in caplog.text
    assert "ended as FAILED" in caplog.text and f"{tmp_path}/logs/doubled/worker_" in caplog.text
    assert visits(tmp_path)[3] == 2
    wait_until(lambda: nothing_is_left(slurm, run))


def test_a_worker_that_is_stopped_is_cancelled_and_its_block_done_by_another(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that its cluster suspends for too long, or whose worker hangs in a system call."""
    monkeypatch.setattr(hung_workers, "GRACE_SECONDS", 1.0)
    run = slurm_run(tmp_path, retries=1, block_timeout=15.0)
    middle_of_block(run, 3)

    def stop() -> None:
        job_at(slurm, run, 3)
        os.kill(int((tmp_path / "waiting").read_text()), signal.SIGSTOP)

    stopping = threading.Thread(target=stop)
    stopping.start()
    assert finish(run)
    stopping.join()
    assert_undisturbed(slurm, run)
    assert visits(tmp_path)[3] == 2
    assert "it was stopped, or hung in a system call; it is cancelled" in caplog.text


def test_a_killed_driver_leaves_no_workers_and_the_next_one_cancels_what_waits(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    run = slurm_run(tmp_path, retries=0)
    middle_of_block(run, 3)
    with crowded(slurm):
        with driver(run) as process:
            job = job_at(slurm, run, 3)
            slurm.wait_until(lambda: "PENDING" in {each.state for each in jobs_of(slurm, run)}, "a job to wait")
            process.kill()
            process.join()
        slurm.wait_until(lambda: slurm.job(job.id).ended, "the orphan to end")
        (tmp_path / "go").touch()
        assert finish(run)
    assert_undisturbed(slurm, run)


def test_an_interrupted_driver_takes_its_jobs_along(slurm: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path)
    middle_of_block(run, 3)
    with driver(run) as process:
        job_at(slurm, run, 3)
        os.kill(process.pid or 0, signal.SIGTERM)
        process.join()
        assert nothing_is_left(slurm, run) or not [job for job in jobs_of(slurm, run) if job.state == "PENDING"]
    wait_until(lambda: nothing_is_left(slurm, run))


def test_the_controller_may_be_away_for_a_while(slurm: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path)
    go = middle_of_block(run, 3)
    with driver(run) as process:
        job_at(slurm, run, 3)
        slurm.stop_controller()
        try:
            (tmp_path / "die_once").write_text("7")
            go.touch()
            wait_until(lambda: visits(tmp_path).get(7) == 1)
        finally:
            slurm.start_controller()
        process.join()
        assert process.exitcode == 0
    assert_undisturbed(slurm, run)
