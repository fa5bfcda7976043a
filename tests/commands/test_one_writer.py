"""One process writes into a run directory at a time, whatever it writes; who only reads is not kept waiting."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from script_logging import keep_logging  # noqa: F401  a fixture for all tests here
from toy_tasks import wait_until

from pipeline.api import run_all
from pipeline.command_names import SCRIPTS, module_of
from pipeline.config import load_config
from pipeline.engine.tracking.driver_lock import lock_state, only_driver
from pipeline.errors import UserError
from pipeline.run import Run

ROOT = Path(__file__).parents[2]
READING: dict[str, list[str]] = {
    "status": [],
    "audit": [],
    "view": ["--dry-run"],
    "run": ["--dry-run"],
    "train-teacher": ["--dry-run"],
}
"""Commands that only read, with what makes them do so."""
WRITING: dict[str, list[str]] = {step: [] for step in SCRIPTS if step not in ("status", "audit", "view", "add-workers")}
WRITING |= {"view": ["--report"], "audit": ["--requeue"], "export": ["--target", "ngff", "--to", "exported.zarr"]}


def config_of(directory: Path) -> Path:
    """A run on a small phantom with all that writes: teacher, paraphraser, student, blocks, scores."""
    network = {"name": "section_unet", "sections": 1, "widths": [4, 6], "embedding_channels": 4}
    training = {"iterations": 1_000_000, "patch_shape": [1, 32, 32], "loader_workers": 0, "log_every": 1}
    region = {"source": "a"}
    document = {
        "run_directory": str(directory / "run"),
        "volumes": {
            "sources": {"a": {"kind": "phantom", "shape": [8, 64, 64]}},
            "train": [{**region, "z_share": [0.0, 0.5]}],
            "segment": region,
        },
        "teacher": {"network": network, "training": training},
        "student": {"network": network, "training": training, "distillation": {"graph_flow": {"paraphraser": {}}}},
        "predict": {"block_size": [4, 32, 32]},
        "cluster": {"executor": "serial"},
    }
    path = directory / "config.json"
    path.write_text(json.dumps(document))
    return path


@contextmanager
def training_teacher(config: Path) -> Iterator[subprocess.Popen[str]]:
    """A real training that would go on for ever, from its first iteration on."""
    command = [sys.executable, str(ROOT / "workflows" / "00_train_teacher.py"), str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    curves = Path(load_config(config).run_directory) / "teacher" / "curves.jsonl"
    try:
        wait_until(lambda: process.poll() is not None or (curves.exists() and curves.stat().st_size > 0))
        assert process.poll() is None, process.stderr and process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


def status_of(step: str, config: Path, options: list[str], monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """The exit status of a command."""
    monkeypatch.setattr("sys.argv", [step, str(config), *options])
    main: Callable[[], None] = import_module(f"pipeline.commands.{module_of(step)}").main
    with pytest.raises(SystemExit) as exit_:
        main()
    return exit_.value.code


def test_whatever_writes_is_refused_beside_a_training_and_what_reads_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path)
    run = Run(load_config(config))
    with training_teacher(config) as process:
        before = {path: path.stat().st_mtime_ns for path in run.directory.rglob("*") if "teacher" not in path.parts}
        for step, options in WRITING.items():
            assert status_of(step, config, options, monkeypatch) == 2, step
            told = capsys.readouterr().err
            assert f"process {process.pid} on " in told and "(00_train_teacher.py, since 2" in told, step
            assert len(told.splitlines()) == 1, step
        assert status_of("evaluate", config, ["--floor"], monkeypatch) == 2
        assert "works on this run directory" in capsys.readouterr().err
        after = {path: path.stat().st_mtime_ns for path in run.directory.rglob("*") if "teacher" not in path.parts}
        assert after == before
        for step, options in READING.items():
            status = status_of(step, config, options, monkeypatch)
            told = capsys.readouterr().err
            assert "works on this run directory" not in told, step
            assert status == 0, (step, told)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock_state(run).held is False, "a killed process holds nothing"


def hold(run: Run) -> None:
    """Work on a run until there is a file `go`."""
    with only_driver(run):
        (run.directory / "held").touch()
        wait_until((run.directory / "go").exists)


def test_functions_of_the_api_are_refused_as_their_commands_are(tmp_path: Path) -> None:
    run = Run(load_config(config_of(tmp_path)))
    other = multiprocessing.get_context("spawn").Process(target=hold, args=(run,))
    other.start()
    try:
        wait_until((run.directory / "held").exists)
        with pytest.raises(UserError, match=rf"process {other.pid} on .* works on this run directory"):
            run_all(run)
    finally:
        (run.directory / "go").touch()
        other.join()
