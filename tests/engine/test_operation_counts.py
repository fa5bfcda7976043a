"""What a block costs besides its work, counted and not timed: a block may be shorter than a millisecond."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import daisy.v2 as daisy
import pytest
from daisy import _daisy as daisy_core
from funlib.geometry import Roi
from toy_tasks import Doubled, NoAttention, make_run

from pipeline.engine.blocks.grid import Block, BlockGrid
from pipeline.engine.blocks.stage import BlockFunction
from pipeline.engine.chain import run_stages
from pipeline.engine.tracking.failures import LOOK_SECONDS, end_early, read_failures, record_death
from pipeline.engine.tracking.progress import begin
from pipeline.engine.tracking.worker_records import attend, read_roster
from pipeline.engine.workers import worker
from pipeline.engine.workers.worker import Books, OpenTask, attempt, compute_blocks
from pipeline.run import Run

WARM = 20
"""Blocks before the counting begins: everything is imported and open then."""
EVENTS = {
    "open",
    "os.remove",
    "os.rename",
    "os.scandir",
    "os.listdir",
    "os.mkdir",
    "socket.connect",
    "subprocess.Popen",
}
"""What Python tells its audit hooks."""
CALLS = ("access", "fstat", "pread", "pwrite", "read", "write", "stat", "lstat", "unlink")
"""System calls that it does not tell of, or not of all; `os` is patched to count them."""

counting: Counter[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if counting is not None and event in EVENTS:
        counting[event] += 1


sys.addaudithook(_audit)


@dataclass(frozen=True)
class Nothing(Doubled):
    """Blocks that do nothing."""

    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        yield lambda block: None


class HandsOut:
    """Stands for daisy's client: gives the blocks of a task one after the other, and counts in between.

    They are made before the counting begins, and have daisy's numbers.
    """

    def __init__(self, task: Doubled, from_block: Callable[[int], None]) -> None:
        total = task.grid.to_roi(task.grid.box)
        whole = task.grid.to_roi(task.grid.block(0).box)
        regions = [task.grid.to_roi(block.box) for block in task.grid]
        self._given = [
            daisy_core.Block(total, region, Roi(region.begin, whole.shape), task_id=task.name) for region in regions
        ]
        self._from_block, self._next = from_block, 0

    def acquire_block(self) -> daisy_core.Block | None:
        """The next block."""
        self._from_block(self._next)
        given = self._given[self._next] if self._next < len(self._given) else None
        self._next += 1
        return given

    def release_block(self, block: daisy_core.Block) -> None:
        """Every one is a success."""
        assert block.status == daisy.BlockStatus.SUCCESS

    def report_failure(self, block: daisy_core.Block, error: str) -> None:
        """Not called."""
        raise AssertionError(error)


def task_of(directory: Path) -> Nothing:
    """A task of some hundred blocks that has begun."""
    task = Nothing(make_run(directory, (25, 26, 25)))
    begin(task)
    return task


def worker_through(task: Nothing, monkeypatch: pytest.MonkeyPatch, from_block: Callable[[int], None]) -> None:
    """A worker's whole life, in this process."""
    monkeypatch.setenv(daisy.Context.ENV_VARIABLE, daisy.Context(hostname="none", port=0, worker_id=0).to_env())
    monkeypatch.setattr(worker, "connected", lambda context: nullcontext(HandsOut(task, from_block)))
    assert compute_blocks(task, attend(task, "0"), NoAttention()) == "done"


def count_system_calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """A counter of calls into `os`, which goes on until the test ends."""
    counts: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., Any]:
        function = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **named)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, counted(name))
    return counts


def test_a_block_opens_no_file_and_asks_the_system_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    global counting
    task = task_of(tmp_path)
    last = len(task.grid)
    blocks = last - WARM
    events: Counter[str] = Counter()
    calls = count_system_calls(monkeypatch)

    def from_block(number: int) -> None:
        global counting
        if number == WARM:
            calls.clear()
            counting = events
        if number == last:
            counting = None
            monkeypatch.undo()

    worker_through(task, monkeypatch, from_block)
    assert calls["pread"] <= 2 * blocks, "one look before and one after for failures, in a file that stays open"
    assert calls["pwrite"] == 0, "the roster is written in memory"
    looks = 5  # at the reason to end and at the memory, a few per second
    assert sum(events.values()) <= looks + blocks // 10, events
    assert sum(calls.values()) - calls["pread"] <= looks + blocks // 10, calls


def test_a_block_takes_few_steps_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(tmp_path)
    last = len(task.grid)
    blocks = last - WARM
    steps: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            steps[event] += 1

    def from_block(number: int) -> None:
        if number == WARM:
            sys.setprofile(profile)
        if number == last:
            sys.setprofile(None)

    worker_through(task, monkeypatch, from_block)
    assert sum(steps.values()) <= 55 * blocks, f"{sum(steps.values()) / blocks:.0f} calls per block"


def test_the_roster_record_of_a_block_is_small(tmp_path: Path) -> None:
    attendance = attend(task_of(tmp_path), "0")
    for index in range(10):
        attendance.begin(index)
        place, content = attendance.entry.next_record()
        assert place.stop - place.start == len(content) <= 128
        attendance.end(index, True)


def test_daisy_is_asked_for_no_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To make one takes longer than all else that a worker does about a block."""
    task = task_of(tmp_path)
    monkeypatch.setattr(BlockGrid, "index_of", lambda grid, roi: pytest.fail(f"{roi} was asked for"))
    worker_through(task, monkeypatch, lambda number: None)
    assert [entry.done for entry in read_roster(task)] == [len(task.grid)]


def test_the_serial_executor_opens_no_file_per_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_of(side: int) -> tuple[int, int]:
        """System calls and opened files."""
        global counting
        run = make_run(tmp_path / str(side), (side + 1, side + 2, side + 1), predict={"skip_empty": False})
        with monkeypatch.context() as patch:
            calls, counting = count_system_calls(patch), Counter()
            opened = counting
            assert run_stages(run, [Nothing(run)], False)
            counting = None
        return sum(calls.values()), opened["open"]

    (few_calls, few_opened), (many_calls, many_opened) = run_of(8), run_of(24)
    more_blocks = 6**3 - 2**3
    assert many_calls - few_calls <= 2 * more_blocks + more_blocks // 10
    assert many_opened - few_opened <= more_blocks // 10


def books_and_blocks(run: Run) -> tuple[Nothing, Books, OpenTask, list[Block]]:
    task = Nothing(run)
    begin(task)
    return task, Books(task, attend(task, "0")), OpenTask(task), list(task.grid)


def test_a_block_that_failed_elsewhere_a_moment_ago_is_known_to_the_next_worker(tmp_path: Path) -> None:
    """There is no time in which what is not there is believed not to be there."""
    task, books, opened, blocks = books_and_blocks(make_run(tmp_path, cluster={"retries": 0}))
    assert attempt(opened, books, blocks[0])
    record_death(task, blocks[1].index, "its worker died")  # while this worker is at work
    assert not attempt(opened, books, blocks[1])
    assert attempt(opened, books, blocks[2])
    assert [failure.block for failure in read_failures(task)] == [blocks[1].index]


def test_a_success_takes_back_a_failure_that_was_noted_meanwhile(tmp_path: Path) -> None:
    task, books, _, blocks = books_and_blocks(make_run(tmp_path))
    assert books.may_be_tried(blocks[3])
    record_death(task, blocks[3].index, "its former worker died")
    books.note_success(blocks[3])
    assert read_failures(task) == []


def test_the_reason_to_end_is_seen_before_the_next_block_after_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, books, opened, blocks = books_and_blocks(make_run(tmp_path))
    now = [1000.0]
    monkeypatch.setattr("pipeline.engine.tracking.failures.time.monotonic", lambda: now[0])
    assert attempt(opened, books, blocks[0])
    end_early(task, "the disk is full")
    now[0] += LOOK_SECONDS
    assert not attempt(opened, books, blocks[1])
    assert books.ending.reason() is not None


def test_a_worker_whose_own_block_ends_the_stage_begins_no_other(tmp_path: Path) -> None:
    _, books, opened, blocks = books_and_blocks(make_run(tmp_path))
    assert attempt(opened, books, blocks[0])

    def fill_disk(block: Block) -> None:
        raise OSError(28, "No space left on device")

    opened._process_block = fill_disk
    assert not attempt(opened, books, blocks[1])
    assert books.ending.reason() is not None
