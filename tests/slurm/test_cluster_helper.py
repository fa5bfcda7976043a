"""The SLURM that other tests run on does what they rely on."""

from __future__ import annotations

from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster


def submit(cluster: SlurmCluster, folder: Path, script: str, *options: str) -> int:
    output = f"--output={folder}/%j.log"
    return int(cluster.call("sbatch", "--parsable", output, *options, f"--wrap={script}"))


def wait_for_state(cluster: SlurmCluster, jobs: list[int], state: str) -> None:
    cluster.wait_until(lambda: all(cluster.job(job).state == state for job in jobs), f"jobs {jobs} to be {state}")


@pytest.fixture
def cluster(slurm: SlurmCluster) -> SlurmCluster:
    """Without anybody's jobs."""
    slurm.cancel_all()
    return slurm


def test_a_job_runs_and_four_share_a_node(cluster: SlurmCluster, tmp_path: Path) -> None:
    jobs = [submit(cluster, tmp_path, "sleep 100", "--nodelist=n1") for _ in range(4)]
    wait_for_state(cluster, jobs, "RUNNING")
    last = submit(cluster, tmp_path, "echo on $SLURMD_NODENAME")
    wait_for_state(cluster, [last], "COMPLETED")
    assert (tmp_path / f"{last}.log").read_text() == "on n2\n"


def test_a_killed_node_takes_its_jobs_along_and_returns(cluster: SlurmCluster, tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    script = f"(setsid sh -c 'while :; do echo >>{traces}; sleep 0.01; done' &) ; sleep 100"
    lost = submit(cluster, tmp_path, script, "--nodelist=n1", "--no-requeue")
    other = submit(cluster, tmp_path, "sleep 100", "--nodelist=n2", "--no-requeue")
    wait_for_state(cluster, [lost, other], "RUNNING")
    cluster.wait_until(traces.exists, "the job's background process")
    cluster.kill_node("n1")
    wait_for_state(cluster, [lost], "NODE_FAIL")
    size = traces.stat().st_size
    cluster.revive_node("n1")
    again = submit(cluster, tmp_path, "true", "--nodelist=n1")
    wait_for_state(cluster, [again], "COMPLETED")
    assert traces.stat().st_size == size
    assert cluster.job(other).state == "RUNNING"


def test_jobs_outlive_a_restart_of_the_controller(cluster: SlurmCluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = submit(cluster, tmp_path, f"until [ -e {go} ]; do sleep 0.05; done; echo ended well")
    wait_for_state(cluster, [job], "RUNNING")
    cluster.stop_controller()
    cluster.start_controller()
    go.touch()
    wait_for_state(cluster, [job], "COMPLETED")
    assert (tmp_path / f"{job}.log").read_text() == "ended well\n"


def test_jobs_of_main_preempt_scavengers(cluster: SlurmCluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, "sleep 100", "--partition=scavenger", "--exclusive", "--nodelist=n1")
    wait_for_state(cluster, [job], "RUNNING")
    submit(cluster, tmp_path, "true", "--partition=main", "--nodelist=n1")
    wait_for_state(cluster, [job], "PREEMPTED")


def test_nodes_have_networks_of_their_own(slurm_namespaces: SlurmCluster, tmp_path: Path) -> None:
    """Otherwise a worker that is told 127.0.0.1 would pass every test, and fail on a real cluster."""
    job = submit(slurm_namespaces, tmp_path, "ip -brief -4 address", "--nodelist=n2")
    wait_for_state(slurm_namespaces, [job], "COMPLETED")
    assert "10.77.2.2/24" in (tmp_path / f"{job}.log").read_text()


def test_a_job_that_needs_more_memory_than_it_asked_for_is_killed(
    slurm_memory_limits: SlurmCluster, tmp_path: Path
) -> None:
    allocate = "head -c 200M /dev/zero | tail -c 199M >/dev/null"  # tail keeps it all
    greedy = submit(slurm_memory_limits, tmp_path, allocate, "--mem=100M")
    modest = submit(slurm_memory_limits, tmp_path, allocate, "--mem=400M")
    wait_for_state(slurm_memory_limits, [greedy], "OUT_OF_MEMORY")
    wait_for_state(slurm_memory_limits, [modest], "COMPLETED")
