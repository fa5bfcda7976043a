"""Trainings and whole runs as batch jobs of a real SLURM: stopped in time, requeued, continued, never in vain."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from slurm_cluster import SlurmCluster

from pipeline.checkpoints import latest_checkpoint
from pipeline.config import load_config
from pipeline.networks.checkpoint import load_checkpoint
from pipeline.run import Run
from pipeline.training import train_teacher

ROOT = Path(__file__).parents[2]
TRAIN, RUN = ROOT / "workflows/slurm/train.sbatch", ROOT / "workflows/slurm/run.sbatch"

NETWORK: dict[str, Any] = {
    "network": {"name": "section_unet", "sections": 3, "widths": [4, 8]},
    "training": {
        "iterations": 60,
        "batch_size": 1,
        "patch_shape": [3, 32, 32],
        "warm_up": 2,
        "autocast": "off",
        "device": "cpu",
        "loader_workers": 0,
        "checkpoint_every": 4,
        "picture_every": 1000,
    },
}
DOCUMENT: dict[str, Any] = {
    "run_directory": "run",
    "volumes": {
        "sources": {"p": {"kind": "phantom", "shape": [24, 96, 96], "voxel_size": [40, 8, 8], "seed": 1}},
        "train": [{"source": "p"}],
        "segment": {"source": "p"},
    },
    "teacher": NETWORK,
    "student": NETWORK,
    "augment": {"elastic": None},
}

WAIT = """
import pathlib, signal, sys, threading
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
pathlib.Path(sys.argv[1]).touch()
print("waiting")
ended.wait(60)
pathlib.Path("saved").touch()
sys.exit(int(sys.argv[2]))
"""
"""`wait.py FILE STATUS` makes the file, waits until it is told to end, saves, and ends with the status."""


class BatchJob:
    """A job that has been submitted.

    Args:
        cluster: where.
        folder: where it is submitted from, and where its log is.
        command: script and arguments for sbatch.
        environment: on top of ours.
    """

    def __init__(self, cluster: SlurmCluster, folder: Path, *command: str | Path, **environment: str) -> None:
        given = {**os.environ, "SLURM_CONF": str(cluster.configuration), "EMDISTILL_PYTHON": sys.executable}
        words = ["sbatch", "--parsable", "--mem=100", *map(str, command)]
        done = subprocess.run(words, cwd=folder, env=given | environment, capture_output=True, text=True, check=True)
        self.id, self._cluster, self._folder = int(done.stdout), cluster, folder

    @property
    def log(self) -> str:
        """What it has said, in all its starts."""
        return "".join(path.read_text() for path in self._folder.glob(f"*-{self.id}.log"))

    def signal(self, name: str) -> None:
        """Send a signal to its script alone, as SLURM does before the time limit."""
        self._cluster.call("scancel", "--batch", f"--signal={name}", str(self.id))

    def wait_for(self, *states: str, timeout: float = 60) -> str:
        """Wait until it is in one of some states, and return that."""
        self._wait(
            lambda: self._cluster.job(self.id).state in states, f"{self.id} to be {' or '.join(states)}", timeout
        )
        return self._cluster.job(self.id).state

    def wait_for_file(self, folder: Path, pattern: str) -> None:
        """Wait until there is such a file."""
        self._wait(lambda: any(folder.glob(pattern)) or self._cluster.job(self.id).ended, f"{folder / pattern}", 60)
        assert any(folder.glob(pattern)), self.log

    def record(self) -> dict[str, str]:
        """SLURM's record of it."""
        said = self._cluster.call("scontrol", "show", "job", str(self.id))
        return dict(word.split("=", 1) for word in said.split() if "=" in word)

    def _wait(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        try:
            self._cluster.wait_until(condition, what, timeout)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n\n{self.log}") from None


@pytest.fixture
def cluster(slurm: SlurmCluster) -> Iterator[SlurmCluster]:
    """Nobody's jobs run when the test is over."""
    yield slurm
    slurm.cancel_all()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a space in its path, whose scripts run a program that waits."""
    folder = tmp_path / "a checkout"
    shutil.copytree(TRAIN.parent, folder / "workflows" / "slurm")
    (folder / "workflows" / "wait.py").write_text(WAIT)
    return folder


def write_config(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(DOCUMENT | changes))
    return path


def test_a_training_stopped_before_its_time_limit_continues_to_the_same_weights(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "stopped")
    job = BatchJob(cluster, config.parent, TRAIN, "00_train_teacher.py", "config.json", OMP_NUM_THREADS="1")
    network = config.parent / "run" / "teacher"
    job.wait_for_file(network, "checkpoint_*.pt")
    job.signal("USR1")
    job.wait_for("PENDING")
    stopped_at = load_checkpoint(latest_checkpoint(network))["iteration"]
    torch.set_num_threads(1)
    undisturbed = train_teacher(imported(tmp_path / "stopped", tmp_path / "whole"))
    job.wait_for("COMPLETED")
    assert 0 < stopped_at < NETWORK["training"]["iterations"]
    assert f"continuing after iteration {stopped_at} of" in job.log
    weights, expected = (load_checkpoint(path)["model"] for path in (latest_checkpoint(network), undisturbed))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def imported(folder: Path, copy: Path) -> Run:
    """A run without networks, on a copy of the volume that another run has imported."""
    shutil.copytree(folder / "run", copy / "run", ignore=shutil.ignore_patterns("teacher"))
    overrides = [f"run_directory={json.dumps(str(copy / 'run'))}"]
    return Run(load_config(str(folder / "config.json"), overrides))


@pytest.mark.parametrize(
    ("status", "state"),
    [(130, "PENDING"), (143, "PENDING"), (0, "COMPLETED"), (1, "FAILED"), (2, "FAILED")],
    ids=["saved", "killed", "finished", "failed", "bad input"],
)
def test_only_work_that_can_continue_is_requeued(
    cluster: SlurmCluster, checkout: Path, tmp_path: Path, status: int, state: str
) -> None:
    """A failure that is requeued fails for days; one that is not although it was only stopped waits for a person."""
    job = BatchJob(cluster, tmp_path, checkout / "workflows/slurm/train.sbatch", "wait.py", "ready", str(status))
    job.wait_for_file(tmp_path, "ready")
    job.signal("USR1")
    assert job.wait_for("PENDING", "COMPLETED", "FAILED") == state, job.log


def test_a_failure_without_any_signal_is_not_requeued(cluster: SlurmCluster, tmp_path: Path) -> None:
    config = write_config(tmp_path, tecaher={})
    job = BatchJob(cluster, tmp_path, TRAIN, "01_distill.py", config.name)
    job.wait_for("FAILED")
    assert job.record()["ExitCode"] == "2:0"
    assert "error: tecaher" in job.log and "requeued" not in job.log


def test_a_job_that_is_cancelled_saves_its_work_and_stays_cancelled(
    cluster: SlurmCluster, checkout: Path, tmp_path: Path
) -> None:
    job = BatchJob(cluster, tmp_path, checkout / "workflows/slurm/train.sbatch", "wait.py", "ready", "130")
    job.wait_for_file(tmp_path, "ready")
    cluster.call("scancel", str(job.id))
    job.wait_for("CANCELLED")
    assert (tmp_path / "saved").exists() and "requeued" not in job.log


def test_a_job_is_requeued_only_so_many_times(cluster: SlurmCluster, checkout: Path, tmp_path: Path) -> None:
    script = checkout / "workflows/slurm/train.sbatch"
    job = BatchJob(cluster, tmp_path, script, "wait.py", "ready", "130", EMDISTILL_REQUEUES="1")
    for state in ("PENDING", "FAILED"):
        job.wait_for_file(tmp_path, "ready")
        (tmp_path / "ready").unlink()
        job.signal("USR1")
        job.wait_for(state)
    assert job.record()["Restarts"] == "1"
    assert "start 2 on" in job.log and "not requeued, for EMDISTILL_REQUEUES is 1" in job.log


def test_a_job_runs_the_repository_of_its_script_with_the_setup_of_the_user(
    cluster: SlurmCluster, checkout: Path, tmp_path: Path
) -> None:
    """SLURM runs a copy in a spool folder, beside which there is no repository."""
    (checkout / "workflows" / "where.py").write_text("import os; print(os.environ['MODULE'], os.getcwd(), __file__)")
    (checkout / "workflows" / "slurm" / "setup.sh").write_text('echo "$UNSET"; export MODULE=loaded')
    copy = tmp_path / "mine.sbatch"
    shutil.copy(TRAIN, copy)
    relative = BatchJob(cluster, tmp_path, "a checkout/workflows/slurm/train.sbatch", "where.py")
    from_inside = BatchJob(cluster, checkout, copy, "where.py")
    named = BatchJob(cluster, tmp_path, copy, "where.py", EMDISTILL_HOME=str(checkout))
    lost = BatchJob(cluster, tmp_path, copy, "where.py")
    for job, folder in ((relative, tmp_path), (from_inside, checkout), (named, tmp_path)):
        job.wait_for("COMPLETED")
        assert f"loaded {folder} {checkout}/workflows/where.py\n" in job.log
    lost.wait_for("FAILED")
    assert "EMDISTILL_HOME" in lost.log


def test_the_whole_pipeline_is_one_job(cluster: SlurmCluster, tmp_path: Path) -> None:
    write_config(tmp_path)
    job = BatchJob(cluster, tmp_path, RUN, "config.json", "--set", "predict.network=teacher", "--dry-run")
    job.wait_for("COMPLETED", "FAILED")
    assert job.record()["JobState"] == "COMPLETED", job.log
    assert "teacher" in job.log
