"""What a worker says about itself survives it, whatever it was doing: above all, which blocks it had."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import pytest
from status_runs import mark_done
from toy_tasks import Doubled, make_run

from pipeline.engine.executors.worker_processes import Service
from pipeline.engine.tracking.driver_record import DriverNotice
from pipeline.engine.tracking.failures import read_failures
from pipeline.engine.tracking.progress import begin
from pipeline.engine.tracking.worker_record_format import ENTRY_BYTES, MOST_UNDER_WAY, RECORD_BYTES, RECORDS_BYTES
from pipeline.engine.tracking.worker_records import attend, read_entry, roster_folder
from pipeline.engine.workers.driver_connection import Lifeline


def doubled(directory: Path) -> Doubled:
    """A task that has begun."""
    task = Doubled(make_run(directory))
    begin(task)
    return task


def die_with_blocks(task: Doubled, *blocks: int) -> None:
    """A worker that takes blocks and vanishes without a word."""
    attendance = attend(task, "0")
    for block in blocks:
        attendance.begin(block)
    os._exit(9)


def test_all_blocks_under_way_are_known_until_each_is_finished(tmp_path: Path) -> None:
    task = doubled(tmp_path)
    attendance = attend(task, "0")
    for block in (5, 3, 2**40):
        attendance.begin(block)
    entry = read_entry(task, "0")
    assert entry is not None
    assert (list(entry.blocks), entry.block) == ([5, 3, 2**40], 5)
    attendance.end(5, True)
    attendance.end(2**40, False)
    entry = read_entry(task, "0")
    assert entry is not None
    assert (list(entry.blocks), entry.done, entry.failed) == ([3], 1, 1)
    assert entry.block_began >= entry.began
    assert entry.memory > 2**20
    attendance.leave("left: told to end by the cluster")
    entry = read_entry(task, "0")
    assert entry is not None
    assert (entry.block, entry.block_began, entry.state) == (None, 0.0, "left: told to end by the cluster")


def test_a_thread_that_finishes_its_block_when_the_worker_has_left_disturbs_nothing(tmp_path: Path) -> None:
    task = doubled(tmp_path)
    attendance = attend(task, "0")
    attendance.begin(5)
    attendance.leave("left: told to end by the cluster")
    attendance.end(5, True)  # its thread did not know yet
    attendance.begin(6)
    entry = read_entry(task, "0")
    assert entry is not None
    assert (entry.blocks, entry.done, entry.state) == ({}, 0, "left: told to end by the cluster")


def test_a_worker_has_no_more_blocks_than_its_entry_can_name(tmp_path: Path) -> None:
    task = doubled(tmp_path)
    attendance = attend(task, "0")
    for block in range(MOST_UNDER_WAY):
        attendance.begin(block)
    with pytest.raises(ValueError, match="blocks under way"):
        attendance.begin(MOST_UNDER_WAY)
    entry = read_entry(task, "0")
    assert entry is not None
    assert list(entry.blocks) == list(range(MOST_UNDER_WAY))
    assert len(entry.next_record()[1]) <= RECORD_BYTES


def test_a_record_that_is_half_written_leaves_the_one_before(tmp_path: Path) -> None:
    """A worker may die in the middle of writing; which block it had must not be lost with it."""
    task = doubled(tmp_path)
    attendance = attend(task, "0")
    attendance.begin(1)
    attendance.end(1, True)
    attendance.begin(2)
    path = roster_folder(task) / "0.entry"
    before = path.read_bytes()
    attendance.end(2, True)
    after = path.read_bytes()
    outcomes = set()
    for cut in range(ENTRY_BYTES):
        path.write_bytes(after[:cut] + before[cut:])
        entry = read_entry(task, "0")
        assert entry is not None
        outcomes.add((*entry.blocks, entry.done))
    assert outcomes == {(2, 1), (2,)}


def test_an_entry_without_a_whole_record_is_not_believed(tmp_path: Path) -> None:
    task = doubled(tmp_path)
    attendance = attend(task, "0")
    path = roster_folder(task) / "0.entry"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert read_entry(task, "0") is None
    path.write_bytes(b"?" * RECORDS_BYTES + whole[RECORDS_BYTES:])
    assert read_entry(task, "0") is None
    attendance.begin(3)
    entry = read_entry(task, "0")
    assert entry is not None
    assert list(entry.blocks) == [3]


def test_a_file_system_that_maps_no_files_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr("pipeline.engine.tracking.worker_records.mmap.mmap", refuse)
    task = doubled(tmp_path)
    attendance = attend(task, "0")
    for block in (5, 3):
        attendance.begin(block)
    attendance.end(5, False)
    entry = read_entry(task, "0")
    assert entry is not None
    assert (list(entry.blocks), entry.failed) == ([3], 1)


def test_a_worker_that_dies_costs_all_its_blocks_a_try_but_those_that_are_done(tmp_path: Path) -> None:
    task = doubled(tmp_path)
    mark_done(task, 2)  # blocks 0 and 1
    worker = multiprocessing.get_context("fork").Process(target=die_with_blocks, args=(task, 4, 1, 7))
    worker.start()
    worker.join()
    assert worker.exitcode == 9
    service = Service(task.run, [task], DriverNotice.of_this_process("local", ()), Lifeline("127.0.0.1", 0, ""))
    for tries in (1, 2):
        service.died(task, "0", "its worker died of signal 9")
        failures = read_failures(task)
        assert [(failure.block, failure.tries) for failure in failures] == [(4, tries), (7, tries)]
    assert {failure.error for failure in failures} == {"its worker died of signal 9"}
