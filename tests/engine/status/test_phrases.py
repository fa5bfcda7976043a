"""The status as a user reads it: on a terminal, in a browser, in a program."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from script_logging import keep_logging
from status_runs import another_was_the_driver, driver_at_work, look, mark_done
from voronoi_run import make_run, store_affinities

from pipeline.engine.status import (
    DriverState,
    DriverStatus,
    StageState,
    TerminalStyle,
    WorkerState,
    WorkerStatus,
    render_text,
    status_document,
    write_page,
)
from pipeline.engine.status.pace import Session, pace_of
from pipeline.engine.status.phrases import clock_time
from pipeline.engine.status.read_workers import worker_statuses
from pipeline.engine.tracking.error_kinds import ErrorKind
from pipeline.engine.tracking.failures import record_failure
from pipeline.engine.tracking.worker_records import DONE, WorkerRecord
from pipeline.stages.by_script import extract_fragments
from pipeline.units import duration

__all__ = ["keep_logging"]

WORKS = DriverStatus(DriverState.WORKS, "elsewhere", 1, began=0.0)


def entry(worker: str, **values: object) -> WorkerRecord:
    """A worker on another machine that began a while ago."""
    fresh = WorkerRecord(worker, f"node{int(float(worker)) % 4}", 1000, None, f"/logs/{worker}", began=10.0, heard=10.0)
    return replace(fresh, **values)  # type: ignore[arg-type]


def standings(*entries: WorkerRecord, time: float = 1000.0) -> dict[str, WorkerState]:
    statuses = worker_statuses("predict", entries, StageState.RUNNING, WORKS, time)
    return {status.worker: status.state for status in statuses}


def test_a_block_that_takes_much_longer_than_any_before_is_flagged() -> None:
    assert standings(
        entry("0", blocks={1: 900.0}, longest=20.0),
        entry("1", blocks={2: 970.0}),
        entry("2"),
    ) == {"0": WorkerState.SLOW, "1": WorkerState.BUSY, "2": WorkerState.IDLE}


def test_short_blocks_are_not_called_slow_for_a_few_seconds() -> None:
    assert standings(entry("0", blocks={1: 995.0}, longest=0.1)) == {"0": WorkerState.BUSY}


def test_a_job_that_goes_on_in_the_place_of_another_settles_that_one() -> None:
    assert standings(
        entry("0", state="left: 12 s to the time limit"),
        entry("0.1", began=20.0, blocks={4: 15.0}),
        entry("0.2", began=30.0, blocks={5: 990.0}),
        entry("1", state="left: told to end by the cluster"),
        entry("2", state=DONE),
    ) == {
        "0": WorkerState.REPLACED,
        "0.1": WorkerState.REPLACED,
        "0.2": WorkerState.BUSY,
        "1": WorkerState.LEFT,
        "2": WorkerState.DONE,
    }


def many_workers() -> tuple[WorkerStatus, ...]:
    busy = [entry(str(worker), blocks={worker: 999.0}, longest=1.0) for worker in range(300)]
    slow = entry("300", blocks={7: 100.0})
    left = entry("301", state="cannot reach the driver")
    return tuple(worker_statuses("predict", [*busy, slow, left], StageState.RUNNING, WORKS, 1000.0))


def test_hundreds_of_workers_are_summed_up_with_trouble_first(tmp_path: Path) -> None:
    status = replace(look(make_run(tmp_path)), workers=tuple(sorted(many_workers(), key=standing_order)))
    text = render_text(status, TerminalStyle())
    assert "workers: 1 left, 1 slow, 300 busy, on 4 nodes" in text
    rows = [line for line in text.splitlines() if line.startswith("  predict")]
    assert len(rows) == 20
    assert "left: cannot reach the driver" in rows[0] and rows[1].endswith("slow")
    assert "log: /logs/301" in text
    assert "and 282 more; --all lists all" in text
    assert (
        len(
            [
                line
                for line in render_text(status, TerminalStyle(), all_workers=True).splitlines()
                if "  predict" in line
            ]
        )
        == 302
    )


def standing_order(worker: WorkerStatus) -> int:
    return list(WorkerState).index(worker.state)


def test_the_text_fits_a_terminal_and_has_colours_only_if_asked(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with driver_at_work(run, seconds=5000) as (predict, _):
        mark_done(predict, 9)
        status = look(run)
    plain, coloured = render_text(status, TerminalStyle()), render_text(status, TerminalStyle(colour=True))
    paths = (str(tmp_path), "workflows")
    assert all(len(line) <= 100 for line in plain.splitlines() if not any(path in line for path in paths))
    assert "##########.........." in plain and "9 of 18 blocks" in plain
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[\d;]+m", "", coloured) == plain


def test_the_page_escapes_what_comes_from_outside_and_needs_nothing_else(tmp_path: Path) -> None:
    run, page = make_run(tmp_path), tmp_path / "status.html"
    with driver_at_work(run) as (predict, _):
        error = ValueError('<script>alert("1")</script>')
        record_failure(predict, predict.grid.block(3), error, ErrorKind.PERMANENT)
        write_page(page, look(run), seconds=7)
    html = page.read_text()
    assert "&lt;script&gt;alert" in html and "<script" not in html
    assert not re.findall(r"""(?:src|href)=|url\(|@import""", html)
    assert '<meta http-equiv="refresh" content="7">' in html


def test_the_page_of_a_run_that_is_over_does_not_reload(tmp_path: Path) -> None:
    run, page = make_run(tmp_path), tmp_path / "status.html"
    write_page(page, look(run), seconds=7)
    assert "refresh" in page.read_text(), "a run that has not begun may begin"
    store_affinities(run)
    assert extract_fragments(run)
    another_was_the_driver(run)
    write_page(page, look(run), seconds=7)
    assert "refresh" not in page.read_text()


def test_programs_get_the_same_facts_as_json(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with driver_at_work(run, seconds=100) as (predict, _):
        mark_done(predict, 9)
        document = json.loads(json.dumps(status_document(look(run))))
    predict_entry = document["stages"][0]
    assert (document["goes_on"], document["driver"]["life"]) == (True, "works")
    assert {name: predict_entry[name] for name in ("name", "state", "blocks", "done", "left", "fraction")} == {
        "name": "predict",
        "state": "running",
        "blocks": 18,
        "done": 9,
        "left": 9,
        "fraction": 0.5,
    }
    assert predict_entry["voxels_per_second"] == pytest.approx(8 * 40 * 35 * 0.5 / 100, rel=0.1)
    assert predict_entry["pace"]["end"] > time.time()


def test_no_clock_makes_a_time_that_nobody_can_read() -> None:
    assert clock_time(1e300, 0.0) == clock_time(float("nan"), 0.0) == "at no time that a calendar knows"
    assert duration(-8.6e15) == "0.0 s"
    pace = pace_of(Session(blocks=10, seconds=-1000.0, recent=None), left=5, upstream_left=0.0, time=0.0)
    assert (pace.blocks, pace.seconds_left, pace.end) == (0.0, None, None)
