"""The console command as it is installed: without the repository, from a wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import open_run
from pipeline.command_names import SCRIPTS, STARTED_WITH

ROOT = Path(__file__).parents[2]
SOURCES = ("pipeline", "configs", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
TINY_NETWORK = '{"name": "section_unet", "sections": 3, "widths": [2, 4]}'
TINY_TRAINING = '{"iterations": 1, "batch_size": 1, "patch_shape": [5, 32, 32], "loader_workers": 0}'


def run_quietly(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def emdistill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console command of a fresh environment, in which the package is installed beside its dependencies."""
    place = tmp_path_factory.mktemp("installed")
    source, environment = place / "source", place / "environment"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    run_quietly(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, source),
        cwd=place,
    )
    shutil.rmtree(source)
    run_quietly(sys.executable, "-m", "venv", "--without-pip", environment, cwd=place)
    python = environment / "bin" / "python"
    (wheel,) = place.glob("*.whl")
    run_quietly(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, cwd=place)
    (packages,) = (environment / "lib").glob("python*/site-packages")
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    return environment / "bin" / "emdistill"


def type_command(emdistill: Path, folder: Path, *arguments: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
    """What a user sees who types the command in a folder, outside the repository."""
    environment = {name: value for name, value in os.environ.items() if name not in (STARTED_WITH, "PYTHONPATH")}
    environment["NUMBA_DISABLE_JIT"] = "1"  # in a fresh installation it would compile longer than the voxels take
    done = subprocess.run(
        [emdistill, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done


def test_help_lists_every_step_with_what_it_does(emdistill: Path, tmp_path: Path) -> None:
    shown = type_command(emdistill, tmp_path, "--help").stdout
    lines = {words[0]: words[1:] for line in shown.splitlines() if len(words := line.split()) > 2}
    assert {"init", *SCRIPTS} <= set(lines)
    assert all(len(lines[step]) > 2 for step in SCRIPTS)
    step_help = type_command(emdistill, tmp_path, "03", "--help").stdout
    assert "usage: emdistill fragments" in step_help and "--pilot" in step_help


def test_a_mistyped_step_is_one_line(emdistill: Path, tmp_path: Path) -> None:
    done = type_command(emdistill, tmp_path, "agglomerat", expected=2)
    assert done.stderr == "error: agglomerat: no such step; did you mean 'agglomerate'?\n"
    type_command(emdistill, tmp_path, expected=2)


def test_from_nothing_to_scores_without_the_repository(emdistill: Path, tmp_path: Path) -> None:
    assert "next: emdistill run config.json" in type_command(emdistill, tmp_path, "init", "vnc").stdout
    assert type_command(emdistill, tmp_path, "init", expected=2).stderr.startswith("error: config.json: exists")
    (tmp_path / "config.json").unlink()
    type_command(emdistill, tmp_path, "init")
    settings = {
        "run_directory": "here",
        "volumes.sources.demo.shape": "[10,32,32]",
        "predict.block_size": "[5,16,16]",
        "fragments.context": "[1,2,2]",
        "cluster.workers": "1",
    }
    for role in ("teacher", "student"):
        settings |= {f"{role}.network": TINY_NETWORK, f"{role}.training": TINY_TRAINING}
    overrides = [f"--set={key}={value}" for key, value in settings.items()]
    early = type_command(emdistill, tmp_path, "03", *overrides, expected=2)
    assert early.stderr == "error: fragments needs predict, which is missing; run emdistill predict first\n"
    done = type_command(emdistill, tmp_path, "run", *overrides)
    assert done.stdout.splitlines()[-1] == f"next: emdistill view {tmp_path}/here/config.json"
    assert "next:" not in done.stderr, "no step tells what comes next while the command goes on to it by itself"
    assert "workflows/" not in done.stdout + done.stderr
    assert open_run(tmp_path / "here" / "config.json").summary.exists()
    status = type_command(emdistill, tmp_path, "status", "here/config.json")
    assert "emdistill view" in status.stdout
