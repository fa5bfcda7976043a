"""The command that shows a status: watching, pages, and what is typed in the wrong order."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from script_logging import keep_logging
from voronoi_run import make_run, store_affinities

from pipeline.cli import run_script
from pipeline.commands import status as status_command
from pipeline.engine.status import TerminalStyle

__all__ = ["keep_logging"]


def exit_status(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as exit_:
        run_script("Status.", status_command.work, add_arguments=status_command.add_arguments, arguments=arguments)
    return exit_.value.code


def test_watching_ends_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    run.save_config()
    store_affinities(run)
    config = str(tmp_path / "config.json")
    assert exit_status(config, "--watch", "0.01", "--json") == 0
    assert json.loads(capsys.readouterr().out)["headline"] == "not complete"


def test_ctrl_c_ends_watching_without_complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path).save_config()

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    assert exit_status(str(tmp_path / "config.json"), "--watch") == 0


@pytest.mark.parametrize("option", ["--html", "--watch"])
def test_a_config_after_an_option_is_not_taken_for_its_value(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path).save_config()
    monkeypatch.chdir(tmp_path)
    before = Path("config.json").read_bytes()
    assert exit_status(option, "config.json") == 2
    assert f"write the config before {option}" in capsys.readouterr().err
    assert Path("config.json").read_bytes() == before


def test_a_page_can_be_written_elsewhere_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "run").save_config()
    config = str(tmp_path / "run" / "config.json")
    assert exit_status(config, "--html") == 0
    assert exit_status(config, "--html", str(tmp_path / "www" / "index.html")) == 0
    places = [tmp_path / "run" / "status.html", tmp_path / "www" / "index.html"]
    assert capsys.readouterr().out.split() == [str(place) for place in places]
    assert all(place.read_text().endswith("</html>") for place in places)


def test_a_terminal_without_utf_8_gets_plain_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        encoding = "ANSI_X3.4-1968"

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdout", Terminal())
    assert status_command.style_of_terminal() == TerminalStyle()
