"""Runs of toy tasks whose workers are jobs of a real SLURM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
from slurm_cluster import Job, SlurmCluster
from toy_tasks import Doubled, Summed, expected_sums, make_run, wait_until

from pipeline.engine.chain import run_stages
from pipeline.engine.executors.slurm_jobs import job_prefix
from pipeline.engine.tracking.worker_records import worker_records
from pipeline.run import Run


def slurm_run(directory: Path, slurm: dict[str, Any] | None = None, **cluster: Any) -> Run:
    """Two workers as jobs."""
    settings = {"poll": 0.5, "patience": 120.0, **(slurm or {})}
    return make_run(directory, cluster={"executor": "slurm", "workers": 2, "slurm": settings, **cluster})


def finish(run: Run) -> bool:
    """The command."""
    return run_stages(run, [Doubled(run), Summed(run)], overwrite=False)


def result(run: Run) -> np.ndarray:
    """What the last stage wrote."""
    return Summed(run).open().read(Summed(run).grid.box)


def jobs_of(cluster: SlurmCluster, run: Run) -> list[Job]:
    """Its jobs, ended ones too."""
    return [job for job in cluster.jobs() if job.name.startswith(job_prefix(run))]


def running(cluster: SlurmCluster, run: Run) -> list[Job]:
    """Those of its jobs that run."""
    return [job for job in jobs_of(cluster, run) if job.state == "RUNNING"]


def nothing_is_left(cluster: SlurmCluster, run: Run) -> bool:
    """Whether all of its jobs have ended."""
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
    """The command, in a process of its own."""
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


def assert_undisturbed(cluster: SlurmCluster, run: Run) -> None:
    """The result is right, and no job is left."""
    np.testing.assert_array_equal(result(run), expected_sums(run))
    wait_until(lambda: nothing_is_left(cluster, run))
