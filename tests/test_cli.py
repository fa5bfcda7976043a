"""Workflow scripts share their arguments and tell users' mistakes from bugs by the exit status."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from script_logging import keep_logging  # noqa: F401  a fixture for all tests here

from pipeline.cli import Work, run_script
from pipeline.errors import UserError
from pipeline.run import Run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a config.json in it."""
    document = {
        "run_directory": ".",
        "volumes": {"sources": {"a": {"kind": "phantom"}}, "segment": {"source": "a"}},
        "student": {"network": {"name": "section_unet"}, "distillation": None},
    }
    (tmp_path / "config.json").write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def status_of(work: Work, *arguments: str) -> int | str | None:
    """The exit status of a script."""
    with pytest.raises(SystemExit) as exit_:
        run_script("A script.", work, arguments=arguments)
    return exit_.value.code


def fail(error: BaseException) -> Work:
    """Work that raises."""

    def work(run: Run, options: argparse.Namespace) -> None:
        raise error

    return work


def test_without_arguments_the_config_json_here_is_used(folder: Path) -> None:
    seen: list[Run] = []
    assert status_of(lambda run, options: seen.append(run)) == 0
    assert seen[0].directory == folder


def test_failed_blocks_exit_with_1(folder: Path) -> None:
    assert status_of(lambda run, options: 1) == 1


def test_users_errors_are_one_line_and_exit_with_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(fail(UserError("no\nsuch thing", "a.b"))) == 2
    assert capsys.readouterr().err == "error: a.b: no such thing\n"
    assert status_of(lambda run, options: None, "missing.json") == 2
    assert status_of(lambda run, options: None, "--set", "sed=1") == 2
    assert capsys.readouterr().err.splitlines()[1] == "error: sed: unknown key; did you mean 'seed'?"


def test_debug_shows_the_traceback_of_a_users_error(folder: Path) -> None:
    with pytest.raises(UserError):
        run_script("A script.", fail(UserError("x")), arguments=["--debug"])


def test_bugs_keep_their_traceback(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_script("A script.", fail(ZeroDivisionError()), arguments=[])


def test_ctrl_c_says_how_to_continue(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(fail(KeyboardInterrupt())) == 130
    assert "the same command continues" in capsys.readouterr().err


def test_sigterm_says_how_to_continue_and_a_second_one_does_not_disturb_that() -> None:
    """As a batch system ends a step that is neither a training nor made of blocks."""
    code = """if True:
        import sys, threading
        from pipeline.cli import exit_after

        def work():
            try:
                print("begun", flush=True)
                threading.Event().wait()
            finally:
                print("ending", flush=True)
                sys.stdin.readline()  # what a step does at its end

        exit_after(work)
    """
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        for said in ("begun\n", "ending\n"):
            assert process.stdout.readline() == said
            process.send_signal(signal.SIGTERM)
        _, told = process.communicate("go on\n")
    assert process.returncode == 130
    assert told == "interrupted; the same command continues where it stopped\n"


def test_scripts_may_add_arguments(folder: Path) -> None:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--report", action="store_true")

    seen: list[argparse.Namespace] = []
    with pytest.raises(SystemExit):
        run_script("A script.", lambda run, o: seen.append(o), add_arguments=add, arguments=["--report", "--dry-run"])
    assert seen[0].report
    assert seen[0].dry_run


def test_a_terminal_that_lacks_a_letter_gets_another_sign(folder: Path) -> None:
    code = "from pipeline.cli import parse_arguments; parse_arguments('', None, []); print('gro\u00df')"
    shown = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
    )
    assert shown.stdout == b"gro?\n"


def test_a_reader_that_has_seen_enough_ends_a_step_without_a_traceback(folder: Path) -> None:
    """As `status.py | head` does."""
    code = "from pipeline.cli import exit_after; exit_after(lambda: [print('line') for _ in range(100_000)] and 0)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
