"""Strangers at daisy's port, who can reach it but do not know the driver's secret: nobody believes what they say."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from toy_tasks import Doubled, Summed, expected_sums, make_run, visits, wait_until

from pipeline.engine.chain import run_stages
from pipeline.engine.tracking.driver_record import read_driver
from pipeline.engine.workers.driver_connection import DriverServer
from pipeline.run import Run, read_json
from pipeline.volumes import open_volume

STRANGER = Path(__file__).parents[2] / "helpers" / "stranger.py"
BLOCKS = 2 * 2 * 3


@contextmanager
def strangers(run: Run, tasks: list[str], until: Callable[[list[subprocess.Popen[str]]], None]) -> Iterator[None]:
    """Once a worker is in the middle of block 3, strangers come; when `until` returns, the worker goes on."""
    directory = run.directory
    (directory / "wait").write_text("3")
    come: list[subprocess.Popen[str]] = []

    def visit() -> None:
        wait_until((directory / "waiting").exists)
        driver = read_driver(run)
        assert driver is not None
        port = re.search(r"port=(\d+)", driver.tasks[0].context)
        assert port is not None
        for task in tasks:
            command = [sys.executable, str(STRANGER), port.group(1), task]
            come.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        until(come)
        (directory / "go").touch()

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        for stranger in come:
            stranger.kill()
            stranger.communicate()


def until_they_leave(come: list[subprocess.Popen[str]]) -> None:
    for stranger in come:
        stranger.wait(60)


def until_they_are_connected(come: list[subprocess.Popen[str]]) -> None:
    for stranger in come:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "connected\n"


def assert_done(run: Run) -> None:
    summed = open_volume(run.volume, "summed")
    np.testing.assert_array_equal(summed.read(summed.box), expected_sums(run))
    for stage in read_json(run.summary)["stages"].values():
        assert (stage["blocks_done"], stage["blocks_failed"], stage["blocks_orphaned"]) == (BLOCKS, 0, 0)


def local_run(directory: Path) -> Run:
    return make_run(directory, cluster={"executor": "local", "workers": 1})


@pytest.fixture
def open_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system that cannot keep strangers from a port."""
    monkeypatch.setattr(DriverServer, "guard", lambda server, port: None)


@pytest.mark.usefixtures("open_door")
def test_blocks_that_a_stranger_reports_as_done_are_computed_in_the_same_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = local_run(tmp_path)
    with strangers(run, ["doubled"], until_they_leave), caplog.at_level(logging.WARNING):
        assert run_stages(run, [Doubled(run), Summed(run)], False)
    assert "blocks were reported as done that nobody of this run computed" in caplog.text
    assert_done(run)
    assert visits(tmp_path) == dict.fromkeys(range(BLOCKS), 1)


@pytest.mark.usefixtures("open_door")
def test_a_stranger_who_ends_daisys_server_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = local_run(tmp_path)
    with strangers(run, ["no such task"], until_they_leave), caplog.at_level(logging.WARNING):
        assert run_stages(run, [Doubled(run), Summed(run)], False)
    assert "daisy's server broke down (no entry found for key)" in caplog.text
    assert_done(run)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux filters what arrives at a socket")
def test_daisy_hears_nothing_of_strangers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = local_run(tmp_path)
    come: list[subprocess.Popen[str]] = []

    def until(strangers_here: list[subprocess.Popen[str]]) -> None:
        until_they_are_connected(strangers_here)
        come.extend(strangers_here)

    with strangers(run, ["doubled", "no such task"], until), caplog.at_level(logging.WARNING):
        assert run_stages(run, [Doubled(run), Summed(run)], False)
        told = [stranger.communicate(timeout=300)[0] for stranger in come]
    assert told == ["", ""], "they were given no block"
    assert "starts anew" not in caplog.text
    assert_done(run)
    assert visits(tmp_path) == dict.fromkeys(range(BLOCKS), 1)


def test_what_an_earlier_driver_believed_is_not_believed(tmp_path: Path) -> None:
    """A marker without a record, of whatever origin; and what was computed from that block."""
    run = local_run(tmp_path)
    assert run_stages(run, [Doubled(run), Summed(run)], False)
    doubled, summed = Doubled(run), Summed(run)
    first = np.zeros(tuple(doubled.grid.shape), dtype=bool)
    first[0, 0, 0] = True
    doubled.records.take_back(first)
    for name in (doubled.name, summed.name):
        record = read_json(run.tracking / f"{name}.json")
        (run.tracking / f"{name}.json").write_text(str({**record, "complete": False}).replace("'", '"').lower())
    assert run_stages(run, [Doubled(run), Summed(run)], False)
    assert visits(tmp_path) == {0: 2} | dict.fromkeys(range(1, BLOCKS), 1)
    times = summed.records.read().times.reshape(tuple(summed.grid.shape))
    assert times[:2, :2, :2].tolist() == [[[2, 2], [2, 2]], [[2, 2], [2, 2]]]
    assert times[..., 2].max() == 1, "it reads no voxel of block 0"
