"""When a worker leaves before its job is ended."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
from toy_tasks import Doubled, make_run

from pipeline.engine.tracking.worker_records import attend
from pipeline.engine.workers.driver_connection import WorkerLine
from pipeline.engine.workers.job import JobAttention
from pipeline.engine.workers.worker import Leave


def attention_with(tmp_path: Path, longest: float, of_others: float, left: float | None) -> JobAttention:
    """Of a worker whose longest block, and that of another one, took so long, with so many seconds left."""
    task = Doubled(make_run(tmp_path))
    for name, seconds in {"other": of_others, "mine": longest}.items():
        attendance = attend(task, name)
        attendance.entry = replace(attendance.entry, longest=seconds)
        attendance.leave("done")
    line = WorkerLine(socket.socket())
    return JobAttention(task, attendance, line, None if left is None else time.time() + left)


@pytest.mark.parametrize(("longest", "of_others"), [(100.0, 0.0), (0.0, 100.0)], ids=["its own", "of another worker"])
def test_no_block_is_begun_that_does_not_fit_before_the_time_limit(
    tmp_path: Path, longest: float, of_others: float
) -> None:
    attention = attention_with(tmp_path, longest, of_others, left=110.0)
    for ask in (attention.before_waiting, attention.before_block):
        with pytest.raises(Leave, match=r"left: 1\d\d s to the time limit, a block may take 125 s"):
            ask()


@pytest.mark.parametrize("left", [140.0, None], ids=["enough time", "no limit"])
def test_a_block_that_fits_is_begun(tmp_path: Path, left: float | None) -> None:
    attention = attention_with(tmp_path, 100.0, 0.0, left)
    attention.before_waiting()
    attention.before_block()
