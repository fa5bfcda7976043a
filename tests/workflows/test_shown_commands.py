"""What the scripts show can be pasted into a shell, and printed on any terminal."""

from __future__ import annotations

import html
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_tasks
from toy_tasks import Doubled
from voronoi_run import SHAPE, make_run, store_affinities

from pipeline.cli import parse_arguments
from pipeline.command_names import A_SCRIPT, COMMAND, STARTED_WITH, command_line, shell_line
from pipeline.commands import view
from pipeline.commands.evaluate import tell_unwritten
from pipeline.engine.summary import describe_failure
from pipeline.engine.tracking.error_kinds import ErrorKind
from pipeline.engine.tracking.failures import BlockFailure
from pipeline.run import Run
from pipeline.stages.by_script import agglomerate, extract_fragments, segment
from pipeline.viewer.report import write_report
from pipeline.volumes import create_volume

WORKFLOWS = Path(__file__).parents[2] / "workflows"
DIFFICULT = "it's  große Ω $HOME"
"""A folder with two spaces, a quote, letters beyond ASCII and latin-1, and what a shell would replace."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with scores and segmentations in a folder whose name is difficult."""
    run = make_run(tmp_path_factory.mktemp("runs") / DIFFICULT, evaluate={"sweep": [0.3, 0.6], "minimum_size": 1})
    labels = create_volume(run.volume, "labels", SHAPE, np.uint64, voxel_size=(40, 8, 8), chunks=(4, 16, 16))
    labels.write(labels.box, np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint64) // 1000 + 1)
    run.save_config()
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    return run


def typed(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """What a shell makes of a line; its `python` is the one of the tests."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, timeout=500, check=False
    )


def test_the_next_command_can_be_pasted_wherever_the_user_is(tmp_path: Path) -> None:
    run = make_run(tmp_path / DIFFICULT)
    run.save_config()
    store_affinities(run)
    shown = typed(shell_line("python", WORKFLOWS / "status.py", run.directory / "config.json"), tmp_path)
    assert shown.returncode == 0, shown.stderr.decode()
    (command,) = re.findall(r"python .*03_extract_fragments\.py.*", shown.stdout.decode())
    pasted = typed(command, tmp_path)
    assert pasted.returncode == 0, pasted.stderr.decode()
    (command,) = re.findall(r"next: (.*)", pasted.stderr.decode())
    pasted = typed(f"{command} --dry-run", tmp_path)
    assert pasted.returncode == 0, pasted.stderr.decode()
    assert "04_agglomerate.py" in command


def test_the_command_for_the_best_threshold_passes_any_shell(finished: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Some refuse brackets that match no file."""
    tell_unwritten(finished, 0.45)
    (command,) = re.findall(r"no segmentation is written at 0.45: (.*)", capsys.readouterr().out)
    strict = typed(f"shopt -s failglob\nprintf '%s\\n' {command}", finished.directory)
    assert strict.stdout.decode().splitlines()[-2:] == ["--set", "segment.thresholds=[0.30,0.60,0.45]"]


def test_the_place_of_a_failed_block_can_be_pasted_where_places_are_negative(tmp_path: Path) -> None:
    task = Doubled(toy_tasks.make_run(tmp_path))
    vars(task)["grid"] = replace(task.grid, offset=(-400.0, 0.0, -8.0))
    (line,) = re.findall(r"look: (.*)", describe_failure(task, BlockFailure(0, "it fails", "", ErrorKind.PERMANENT)))
    options = parse_arguments("", view.add_arguments, shlex.split(line)[2:])
    assert options.position == [-320.0, 16.0, 8.0], "the middle of 4 x 4 x 4 voxels of 40 x 8 x 8 nm"


def test_the_report_shows_commands_that_can_be_pasted(finished: Run) -> None:
    page = html.unescape(write_report(finished).read_text(encoding="utf-8"))
    (line,) = re.findall(r"<pre>(tensorboard .*)</pre>", page)
    assert shlex.split(line) == ["tensorboard", "--logdir", str(finished.directory)]
    (line,) = re.findall(r"<pre>(.*07_view.*)</pre>", page)
    assert shlex.split(line)[-1] == str(finished.directory / "config.json")


@pytest.mark.parametrize(
    ("script", "options", "encoding"),
    [
        ("06_evaluate.py", "", "ascii"),
        ("06_evaluate.py", "", "latin-1"),
        ("status.py", "", "ascii"),
        ("run_all.py", "--dry-run", "ascii"),
        ("07_view.py", "--report", "ascii"),
    ],
)
def test_a_letter_that_the_terminal_lacks_is_replaced(
    script: str, options: str, encoding: str, finished: Run, tmp_path: Path
) -> None:
    line = shell_line("python", WORKFLOWS / script, finished.directory / "config.json")
    done = typed(f"{line} {options}", tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    shown = (done.stdout + done.stderr).decode(encoding)
    assert "Ω" not in shown and ("?" in shown or options == "--dry-run")


@pytest.mark.parametrize("words", [["-m", "pipeline.config", "check"], ["-m", "pipeline.rag", "counts"]])
def test_the_other_programs_print_it_too(words: list[str], finished: Run) -> None:
    argument = finished.directory / ("config.json" if "check" in words else "rag.sqlite")
    place = str(argument) if "check" in words else f"sqlite:///{argument}"
    done = typed(shell_line("python", *words, place), WORKFLOWS.parent, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert b"?" in done.stdout


def test_documents_are_written_whole_whatever_the_terminal_is() -> None:
    line = "python -m pipeline.config docs"
    plain, ascii_only = (typed(line, WORKFLOWS.parent, PYTHONIOENCODING=name) for name in ("utf-8", "ascii"))
    assert plain.stdout == ascii_only.stdout and "≥" in plain.stdout.decode()


def test_a_script_is_named_by_its_whole_path_outside_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STARTED_WITH, A_SCRIPT)
    monkeypatch.chdir(WORKFLOWS.parent)
    assert command_line("status.py", Path("a b.json")) == "python workflows/status.py 'a b.json'"
    monkeypatch.chdir(tmp_path)
    assert command_line("status.py", Path("-c.json")) == f"python {shell_line(WORKFLOWS / 'status.py')} ./-c.json"
    monkeypatch.setenv(STARTED_WITH, COMMAND)
    assert command_line("status.py", Path("a b.json")) == "emdistill status 'a b.json'"
