"""Processes that load batches live as long as the training, and touch nothing but its own modules."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from run_files import shards_of
from toy_tasks import wait_until

from pipeline.config import dump_config
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.training.sampling.loader import BatchLoader, LoaderError
from pipeline.training.sampling.samples import Sampling
from pipeline.training.steps.training_setup import Training

MakeRun = Callable[..., Run]
ROOT = Path(__file__).parents[3]

LOADING = """
import json, sys
from pipeline.config import load_config
from pipeline.run import Run
from pipeline.training.sampling.loader import BatchLoader
from pipeline.training.steps.training_setup import Training

if __name__ == "__main__":
    training = Training(Run(load_config(sys.argv[1], [])), "teacher")
    with BatchLoader(training.sampling(training.build_network()), 0) as loader:
        loader.next()
        print(json.dumps([worker.pid for worker in loader._batches._workers]), flush=True)
        sys.stdin.read()
"""


def sampling_of(run: Run) -> Sampling:
    training = Training(run, "teacher")
    return training.sampling(training.build_network())


def start_loading(run: Run, directory: Path) -> subprocess.Popen[str]:
    """A program that loads batches with workers, in a working directory; prints their process ids."""
    script, config = directory.parent / "loading.py", directory.parent / "config.json"
    script.write_text(LOADING)
    config.write_text(json.dumps(dump_config(run.config)))
    return subprocess.Popen(
        [sys.executable, str(script), str(config)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_workers_end_with_a_training_that_is_killed(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    program = start_loading(make_run("teacher.training.loader_workers=2"), tmp_path / "work")
    assert program.stdout is not None
    workers = json.loads(program.stdout.readline())
    assert all(psutil.pid_exists(worker) for worker in workers)
    program.kill()
    program.wait()
    wait_until(lambda: not any(psutil.pid_exists(worker) for worker in workers))


def test_modules_of_the_working_directory_are_not_imported(make_run: MakeRun, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name in ("signal", "selectors", "socket", "pipeline", "numpy", "torch"):
        (work / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\n")
    program = start_loading(make_run("teacher.training.loader_workers=1"), work)
    printed, _ = program.communicate("", timeout=500)
    assert program.returncode == 0 and len(json.loads(printed)) == 1
    assert not (tmp_path / "imported").exists()


def test_signals_that_are_meant_for_the_training_stop_no_worker(make_run: MakeRun) -> None:
    sampling = sampling_of(make_run("teacher.training.loader_workers=1", "teacher.training.loader_cache=1"))
    with BatchLoader(sampling, 0) as loader, BatchLoader(sampling, 0) as undisturbed:
        loader.next(), undisturbed.next()
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(loader._batches._workers[0].pid, number)
        for _ in range(3):
            np.testing.assert_array_equal(loader.next()["raw"], undisturbed.next()["raw"])


def test_a_worker_that_is_killed_is_an_error_and_no_end_of_the_batches(make_run: MakeRun) -> None:
    sampling = sampling_of(make_run("teacher.training.loader_workers=1", "teacher.training.loader_cache=1"))
    with BatchLoader(sampling, 0) as loader, pytest.raises(LoaderError, match=r"lower training\.loader_workers"):
        loader.next()
        loader._batches._workers[0].kill()
        for _ in range(5):
            loader.next()


def test_a_mistake_that_a_worker_finds_is_the_users(make_run: MakeRun) -> None:
    run = make_run("teacher.training.loader_workers=1")
    for chunk in shards_of(run, "raw"):
        chunk.write_bytes(b"damaged")
    with BatchLoader(sampling_of(run), 0) as loader, pytest.raises(UserError, match="raw") as mistake:
        loader.next()
    assert "Traceback" not in str(mistake.value)


def test_the_number_of_workers_does_not_change_what_a_training_draws(make_run: MakeRun) -> None:
    sampling = sampling_of(make_run("teacher.training.loader_workers=1"))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with BatchLoader(sampling, 0):
        assert torch.equal(torch.rand(3), expected)
