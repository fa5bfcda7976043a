"""When a worker leaves before its job is ended."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from toy_tasks import Doubled, make_run

from pipeline.engine.tracking.worker_records import open_worker_record
from pipeline.engine.workers.job import TimeLimit


def limit_of(tmp_path: Path, longest: float, of_others: float, left: float | None) -> TimeLimit:
    """Of a worker whose longest block, and that of another one, took so long, with so many seconds left."""
    task = Doubled(make_run(tmp_path))
    for name, seconds in {"other": of_others, "mine": longest}.items():
        record = open_worker_record(task, name)
        record.record.longest = seconds
        record.leave("done")
    return TimeLimit(task, record, None if left is None else time.time() + left)


@pytest.mark.parametrize(("longest", "of_others"), [(100.0, 0.0), (0.0, 100.0)], ids=["its own", "of another worker"])
def test_no_block_is_begun_that_does_not_fit_before_the_time_limit(
    tmp_path: Path, longest: float, of_others: float
) -> None:
    reason = limit_of(tmp_path, longest, of_others, left=110.0).stop_reason()
    assert reason is not None
    assert reason.startswith("left: 1")
    assert reason.endswith(" s to the time limit, a block may take 125 s")


@pytest.mark.parametrize("left", [140.0, None], ids=["enough time", "no limit"])
def test_a_block_that_fits_is_begun(tmp_path: Path, left: float | None) -> None:
    assert limit_of(tmp_path, 100.0, 0.0, left).stop_reason() is None
