"""Workers with several blocks under way: they overlap, each is looked after, and nothing else changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from toy_tasks import Doubled, make_run, visits, wait_until

from pipeline.engine.blocks.grid import Block
from pipeline.engine.blocks.stage import BlockFunction
from pipeline.engine.chain import run_stages
from pipeline.engine.tracking.progress import begin
from pipeline.engine.tracking.worker_records import DONE, open_worker_record, worker_records
from pipeline.engine.workers import worker as worker_module
from pipeline.engine.workers.worker import OpenTask, StopReason
from pipeline.run import Run
from pipeline.volumes import open_volume

IN_FLIGHT = 3


@dataclass(frozen=True)
class Overlapping(Doubled):
    """The first blocks go on when all of them are under way in one worker."""

    @property
    def blocks_in_flight(self) -> int:
        return IN_FLIGHT

    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        folder = self.run.directory / "under_way"
        folder.mkdir(exist_ok=True)
        with super().process() as process_block:

            def process_together(block: Block) -> None:
                (folder / str(block.index)).touch()
                wait_until(lambda: len(list(folder.iterdir())) >= IN_FLIGHT)
                process_block(block)

            yield process_together


def local_run(directory: Path, **cluster: object) -> Run:
    return make_run(directory, cluster={"executor": "local", "workers": 1, **cluster})


def finish(run: Run) -> bool:
    return run_stages(run, [Overlapping(run)], overwrite=False)


def assert_complete(run: Run) -> None:
    task = Overlapping(run)
    expected = run.open_raw("toy").read(task.grid.region).astype(np.uint64) * 2
    doubled = open_volume(run.volume, "doubled")
    np.testing.assert_array_equal(doubled.read(doubled.box), expected)


def test_one_worker_has_several_blocks_under_way(tmp_path: Path) -> None:
    run = local_run(tmp_path)
    assert finish(run)  # it would not go on with one block at a time
    assert_complete(run)
    assert set(visits(tmp_path).values()) == {1}
    (record,) = worker_records(Overlapping(run))
    assert record.done == len(Overlapping(run).grid)
    assert record.state == "done"


def test_a_block_that_fails_does_so_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = local_run(tmp_path, retries=1)
    (tmp_path / "raise").write_text("5")
    with caplog.at_level(logging.ERROR):
        assert not finish(run)
    assert "block 5 was told to fail" in caplog.text
    assert "doubled: 1 of 12 blocks failed" in caplog.text
    (tmp_path / "raise").unlink()
    assert finish(run)
    assert_complete(run)


@pytest.mark.parametrize("left_early", [False, True])
def test_a_block_that_a_thread_was_given_is_computed_when_the_main_thread_gets_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_early: bool
) -> None:
    """The moment: the other thread has its block but has not begun, and the main thread waits for it to end."""
    waited_for, untried = threading.Event(), []

    def take_one_block(opened: OpenTask, log: object, stop_reason: StopReason, vouch: object) -> None:
        assert waited_for.wait(60)
        if stop_reason() is not None:
            untried.append(True)

    def take_blocks(*arguments: object) -> str:
        return "left: told to" if left_early else DONE

    def join(thread: threading.Thread) -> None:
        waited_for.set()
        original_join(thread)

    original_join = threading.Thread.join
    monkeypatch.setattr(worker_module, "_take_blocks_beside", take_one_block)
    monkeypatch.setattr(threading.Thread, "join", join)
    monkeypatch.setattr(worker_module, "_take_blocks", take_blocks)
    monkeypatch.setattr(worker_module, "_client", lambda vouch: None)
    task = Overlapping(local_run(tmp_path))
    begin(task)
    worker_module.compute_blocks(task, open_worker_record(task, "0"), lambda: None)
    assert untried == ([True] * (IN_FLIGHT - 1) if left_early else [])


def test_a_worker_that_dies_costs_the_blocks_under_way_one_try_each(tmp_path: Path) -> None:
    run = local_run(tmp_path, retries=1)
    (tmp_path / "die_once").write_text("1")
    assert finish(run)
    assert_complete(run)
    counts = visits(tmp_path)
    assert counts[1] == 2
    assert max(counts.values()) <= 2


def test_a_stage_that_ends_early_ends_in_all_threads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = local_run(tmp_path, retries=0, identical_failures=IN_FLIGHT)
    (tmp_path / "raise").write_text(" ".join(str(block.index) for block in Overlapping(run).grid))
    with caplog.at_level(logging.ERROR):
        assert not finish(run)
    assert "blocks fail alike" in caplog.text
    assert len(visits(tmp_path)) < len(Overlapping(run).grid)
