"""Messages name the command that the user has."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import toy_tasks
from run_files import shard_of
from voronoi_run import make_run, store_affinities

from pipeline.command_names import (
    A_SCRIPT,
    COMMAND,
    SCRIPTS,
    STARTED_WITH,
    command_line,
    name_of,
    shell_line,
    step_called,
)
from pipeline.engine.executors.worker_processes import worker_environment
from pipeline.errors import UserError
from pipeline.stages.by_script import agglomerate, extract_fragments

ROOT = Path(__file__).parents[1]


def test_every_script_is_a_step() -> None:
    assert {path.name for path in (ROOT / "workflows").glob("*.py")} == set(SCRIPTS.values())


def test_a_step_is_found_by_its_name_its_number_and_its_script() -> None:
    for step, script in SCRIPTS.items():
        assert step_called(step) == step_called(script) == step_called(Path(script).stem) == step
    assert [step_called(number) for number in ("00", "00b", "02", "07", "08")] == [
        "train-teacher",
        "train-paraphraser",
        "predict",
        "view",
        "export",
    ]
    assert step_called("add") is step_called("09") is step_called("") is None


@pytest.mark.parametrize(
    ("started_with", "name", "line"),
    [
        (COMMAND, "emdistill agglomerate", "emdistill agglomerate 'my runs/config.json' --overwrite"),
        (
            A_SCRIPT,
            "workflows/04_agglomerate.py",
            "python workflows/04_agglomerate.py 'my runs/config.json' --overwrite",
        ),
        (
            None,  # in Python, beside the repository
            "workflows/04_agglomerate.py",
            "python workflows/04_agglomerate.py 'my runs/config.json' --overwrite",
        ),
    ],
)
def test_a_step_is_called_as_the_user_began(
    started_with: str | None, name: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STARTED_WITH, raising=False)
    if started_with is not None:
        monkeypatch.setenv(STARTED_WITH, started_with)
    assert name_of("04_agglomerate.py") == name
    assert command_line("04_agglomerate.py", Path("my runs/config.json"), "--overwrite") == line


def test_errors_and_blocks_in_workers_name_the_console_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(STARTED_WITH, COMMAND)
    run = make_run(tmp_path, cluster={"executor": "local", "workers": 1})
    with pytest.raises(UserError, match=r"run emdistill fragments first"):
        agglomerate(run)
    store_affinities(run)
    shard_of(run, "affinities", 1, 2, 2).unlink()
    assert not extract_fragments(run)
    config = tmp_path / "config.json"
    assert f"emdistill audit {config} --requeue has it made again" in caplog.text
    assert f"look: emdistill view {config} --position" in caplog.text
    assert "workflows/" not in caplog.text


def test_workers_elsewhere_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_tasks.make_run(tmp_path)
    monkeypatch.setenv(STARTED_WITH, COMMAND)
    assert worker_environment(run, "0", "", "log")[STARTED_WITH] == COMMAND
    monkeypatch.delenv(STARTED_WITH)
    assert STARTED_WITH not in worker_environment(run, "0", "", "log")


def test_an_error_keeps_the_spaces_of_a_command() -> None:
    line = shell_line("python", Path("two  spaces/it's.py"))
    assert str(UserError(f"nothing is there;\n    run {line}")) == f"nothing is there; run {line}"
    assert shlex.split(line) == ["python", "two  spaces/it's.py"]
