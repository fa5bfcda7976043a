"""Workers as jobs of a real SLURM: whatever ends them, the result is that of an undisturbed run, and no job is left."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slurm_cluster import Job, SlurmCluster
from toy_tasks import Doubled, Summed, expected_sums, make_run, visits, wait_until

from pipeline.engine.chain import run_stages
from pipeline.engine.executors import patience
from pipeline.engine.executors.add_workers import add_workers
from pipeline.engine.executors.slurm_jobs import job_prefix
from pipeline.engine.tracking.worker_records import worker_records
from pipeline.errors import UserError
from pipeline.run import Run


def slurm_run(directory: Path, slurm: dict[str, Any] | None = None, **cluster: Any) -> Run:
    settings = {"poll": 0.5, "patience": 120.0, **(slurm or {})}
    return make_run(directory, cluster={"executor": "slurm", "workers": 2, "slurm": settings, **cluster})


def finish(run: Run) -> bool:
    return run_stages(run, [Doubled(run), Summed(run)], overwrite=False)


def result(run: Run) -> np.ndarray:
    return Summed(run).open().read(Summed(run).grid.box)


def files_of(run: Run) -> set[Path]:
    return set(run.directory.rglob("*"))


def jobs_of(cluster: SlurmCluster, run: Run) -> list[Job]:
    return [job for job in cluster.jobs() if job.name.startswith(job_prefix(run))]


def running(cluster: SlurmCluster, run: Run) -> list[Job]:
    return [job for job in jobs_of(cluster, run) if job.state == "RUNNING"]


def nothing_is_left(cluster: SlurmCluster, run: Run) -> bool:
    return all(job.ended for job in jobs_of(cluster, run))


@contextmanager
def driver(run: Run) -> Iterator[SpawnProcess]:
    """A driver in a process of its own."""
    process = get_context("spawn").Process(target=finish_and_exit, args=(run,))
    process.start()
    yield process
    process.kill()
    process.join()


@contextmanager
def crowded(cluster: SlurmCluster) -> Iterator[None]:
    """Leave one processor of the cluster to others."""
    job = cluster.call(
        "sbatch", "--parsable", "--ntasks=7", "--nodes=2", "--output=/dev/null", "--wrap=sleep 600"
    ).strip()
    cluster.wait_until(lambda: cluster.job(int(job)).state == "RUNNING", "the other job to run")
    try:
        yield
    finally:
        cluster.call("scancel", job)


def finish_and_exit(run: Run) -> None:
    raise SystemExit(0 if finish(run) else 1)


def middle_of_block(run: Run, block: int) -> Path:
    """Have the first visit of a block wait; the file that ends the waiting."""
    (run.directory / "wait").write_text(str(block))
    return run.directory / "go"


def job_at(cluster: SlurmCluster, run: Run, block: int) -> Job:
    """The job whose worker waits in the middle of a block."""
    wait_until((run.directory / "waiting").exists)
    record = next(record for record in worker_records(Doubled(run)) if record.block == block)
    return cluster.job(int(str(record.job)))


def cancel_busy_jobs(cluster: SlurmCluster, run: Run, count: int) -> None:
    """Cancel job after job of a run, each in the middle of a block."""
    cancelled: set[str | None] = set()
    while len(cancelled) < count:
        busy = {record.job for record in worker_records(Doubled(run)) if record.block is not None} - cancelled
        for job in busy:
            cluster.call("scancel", str(job))
        cancelled |= busy
        time.sleep(0.05)


def assert_undisturbed(cluster: SlurmCluster, run: Run) -> None:
    """The result is right, and no job is left."""
    np.testing.assert_array_equal(result(run), expected_sums(run))
    wait_until(lambda: nothing_is_left(cluster, run))


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
    monkeypatch.setattr(patience, "GRACE_SECONDS", 1.0)
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


def test_one_worker_is_enough_and_jobs_that_never_started_are_cancelled(slurm: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path, workers=3)
    with crowded(slurm):
        assert finish(run)
    assert_undisturbed(slurm, run)
    assert any(job.node == "" for job in jobs_of(slurm, run))


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


def test_a_refused_job_is_one_line_before_anything_is_done(slurm: SlurmCluster, tmp_path: Path) -> None:
    run = slurm_run(tmp_path, {"stages": {"predict": {"memory": "1G"}}, "partition": "nowhere"})
    before = files_of(run)
    with pytest.raises(UserError, match=r"SLURM refuses the jobs of doubled: .*nowhere") as caught:
        finish(run)
    assert caught.value.where == "cluster.slurm"
    assert files_of(run) == before and not jobs_of(slurm, run)


def test_a_machine_without_slurm_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = slurm_run(tmp_path / "run")
    before = files_of(run)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch is not on the PATH; run where jobs can be submitted from") as caught:
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
