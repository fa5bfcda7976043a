"""What a worker says about itself survives it, whatever it was doing: above all, which blocks it had."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
from status_runs import mark_done
from toy_tasks import Doubled, make_run, wait_until

from pipeline.engine.executors.session import DriverSession
from pipeline.engine.tracking.driver_record import DriverRecord
from pipeline.engine.tracking.failures import read_failures
from pipeline.engine.tracking.progress import begin
from pipeline.engine.tracking.worker_records import (
    MANY_BLOCKS,
    WorkerRecord,
    open_worker_record,
    read_worker_record,
    worker_record_folder,
    worker_records,
)
from pipeline.engine.workers.driver_connection import DriverServer


def doubled(directory: Path) -> Doubled:
    """A task that has begun."""
    task = Doubled(make_run(directory))
    begin(task)
    return task


def record_of(task: Doubled) -> WorkerRecord:
    """What others read of worker 0."""
    record = read_worker_record(task, "0")
    assert record is not None
    return record


def die_with_blocks(task: Doubled, *blocks: int) -> None:
    """A worker that takes blocks and vanishes without a word."""
    record = open_worker_record(task, "0")
    for block in blocks:
        record.begin(block)
    os._exit(9)


def test_all_blocks_under_way_are_known_until_each_is_finished(tmp_path: Path) -> None:
    task = doubled(tmp_path)
    worker = open_worker_record(task, "0")
    for block in (5, 3, 2**40):
        worker.begin(block)
    record = record_of(task)
    assert (list(record.blocks), record.block) == ([5, 3, 2**40], 5)
    worker.end(5, True)
    worker.end(2**40, False)
    record = record_of(task)
    assert (list(record.blocks), record.done, record.failed) == ([3], 1, 1)
    assert record.block_began >= record.began
    assert record.memory > 2**20
    worker.leave("left: told to end by the cluster")
    record = record_of(task)
    assert (record.block, record.block_began, record.state) == (None, 0.0, "left: told to end by the cluster")


def test_a_thread_that_finishes_its_block_when_the_worker_has_left_disturbs_nothing(tmp_path: Path) -> None:
    task = doubled(tmp_path)
    worker = open_worker_record(task, "0")
    worker.begin(5)
    worker.leave("left: told to end by the cluster")
    worker.end(5, True)  # its thread did not know yet
    worker.begin(6)
    record = record_of(task)
    assert (record.blocks, record.done, record.state) == ({}, 0, "left: told to end by the cluster")


def test_a_clock_that_is_set_back_makes_no_time_negative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = doubled(tmp_path)
    worker = open_worker_record(task, "0")
    worker.begin(5)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now - 1e6)
    worker.end(5, True)
    record = record_of(task)
    assert record.done == 1 and 0 <= record.busy < 100 and 0 <= record.longest < 100


def test_a_record_that_is_half_written_is_passed_over(tmp_path: Path) -> None:
    task = doubled(tmp_path)
    worker = open_worker_record(task, "0")
    open_worker_record(task, "1")
    path = worker_record_folder(task) / "0.json"
    path.write_bytes(path.read_bytes()[:100])
    assert read_worker_record(task, "0") is None
    assert [record.worker for record in worker_records(task)] == ["1"]
    worker.begin(3)
    assert list(record_of(task).blocks) == [3]


def test_of_many_short_blocks_the_last_word_is_written_too(tmp_path: Path) -> None:
    """While a worker waits for its next block, nobody takes it for one that computes."""
    task = doubled(tmp_path)
    worker = open_worker_record(task, "0")
    worker.write_late()
    for block in range(3 * MANY_BLOCKS):
        worker.begin(block)
        worker.end(block, True)
    wait_until(lambda: (record_of(task).done, record_of(task).blocks) == (3 * MANY_BLOCKS, {}))


def test_a_worker_that_dies_costs_all_its_blocks_a_try_but_those_that_are_done(tmp_path: Path) -> None:
    task = doubled(tmp_path)
    mark_done(task, 2)  # blocks 0 and 1
    worker = multiprocessing.get_context("fork").Process(target=die_with_blocks, args=(task, 4, 1, 7))
    worker.start()
    worker.join()
    assert worker.exitcode == 9
    record = DriverRecord.of_this_process("local", ())
    session = DriverSession(task.run, [task], record, DriverServer("127.0.0.1", 0, ""))
    for tries in (1, 2):
        session.worker_died(task, "0", "its worker died of signal 9")
        failures = read_failures(task)
        assert [(failure.block, failure.tries) for failure in failures] == [(4, tries), (7, tries)]
    assert {failure.error for failure in failures} == {"its worker died of signal 9"}
