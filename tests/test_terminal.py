"""What users see: bars on terminals only, log lines whole above them, tables that other programs can read."""

from __future__ import annotations

import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from voronoi_run import make_run

from pipeline.terminal import ProgressLines, table_lines

ROOT = Path(__file__).parents[1]
WORK = """
import logging
from pipeline.cli import start_logging
from pipeline.terminal import tracked

start_logging(debug=False)
for piece in tracked(range(3), "work", 3, "pieces"):
    logging.getLogger("emdistill").info("piece %d is done", piece)
"""


def on_terminal(command: list[str]) -> str:
    """What a command shows on a terminal of its own, which is what it has as output and standard error."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, env=environment, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the terminal is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait() == 0, shown.decode()
    return shown.decode()


def test_a_bar_shows_count_and_rate_and_leaves_log_lines_whole() -> None:
    shown = re.sub(r"\x1b\[[\d;]+m", "", on_terminal([sys.executable, "-c", WORK]))
    assert re.search(r"3/3 pieces \S+/s 0:00:00", shown)
    for piece in range(3):
        assert f"piece {piece} is done\r\n" in shown


def test_without_a_terminal_there_are_log_lines_alone() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", WORK], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [f"piece {piece} is done" for piece in range(3)]


def test_long_work_without_a_terminal_says_now_and_then_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """At first every half minute, later each tenth of the time so far, so that a log of days can still be read."""
    moment = 0.0
    lines = ProgressLines("student", 100_000, "iterations", done=1000, now=lambda: moment)
    told: list[float] = []
    with caplog.at_level(logging.INFO, logger="pipeline"):
        for second in range(1, 3600):
            moment, before = float(second), len(caplog.messages)
            lines.tell(1000 + 10 * second, "loss 0.5000")
            if len(caplog.messages) > before:
                told.append(moment)
        moment = 1e9
        lines.tell(100_000)
    assert told[:3] == [30, 60, 90] and told[-1] - told[-2] > 300 and len(told) < 50
    assert caplog.messages[0] == "student: 1,300 of 100,000 iterations (1.3 %), 10/s, 2.7 h left; loss 0.5000"
    assert len(caplog.messages) == len(told), "the end is told by whoever did the work"


def test_workers_start_without_the_library_that_draws() -> None:
    code = "import sys, pipeline.stages.predict, pipeline.engine.workers.job; sys.exit('rich.progress' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_tables_are_aligned_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    lines = table_lines(["stage", "done", ""], [["predict", "7", "[bold]"], ["rag", "1234", long]], numbers=["done"])
    assert lines == ["stage    done", "predict     7  [bold]", f"rag      1234  {long}"]


def test_a_watched_status_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    """Of a run without anything to do, two looks; nothing scrolls away."""
    make_run(tmp_path, segment={"thresholds": [0.3]}).save_config()
    code = """
import sys, time
from pipeline.commands import status

looks = iter([None, None])
def sleep(seconds):
    if next(looks, 0) == 0:
        raise KeyboardInterrupt
status.time.sleep = sleep
sys.argv[1:] = [{!r}, "--watch"]
status.main()
""".format(str(tmp_path / "config.json"))
    shown = on_terminal([sys.executable, "-c", code])
    assert shown.count("state   ") >= 3, "two looks, and a third that Ctrl-C ends"
    assert "\x1b[1A\x1b[2K" in shown, "lines are written over"
