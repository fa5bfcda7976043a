"""What a worker knows of failures, its own and those of others, before it tries a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from toy_tasks import Doubled, make_run

from pipeline.engine.blocks.grid import Block
from pipeline.engine.blocks.stage import BlockFunction
from pipeline.engine.tracking.failures import LOOK_SECONDS, end_early, read_failures, reason_to_end, record_death
from pipeline.engine.tracking.progress import begin
from pipeline.engine.workers.worker import OpenTask, attempt


@dataclass(frozen=True)
class Nothing(Doubled):
    """Blocks that do nothing, but for one that finds the disk full."""

    keeps_records = False
    full_at: int = -1

    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        def process_block(block: Block) -> None:
            if block.index == self.full_at:
                raise OSError(28, "No space left on device")

        yield process_block


def begun(directory: Path, full_at: int = -1, **cluster: Any) -> tuple[OpenTask, list[Block]]:
    task = Nothing(make_run(directory, cluster=cluster), full_at=full_at)
    begin(task)
    return OpenTask(task), list(task.grid)


def test_a_block_that_failed_elsewhere_a_moment_ago_is_known_to_the_next_worker(tmp_path: Path) -> None:
    opened, blocks = begun(tmp_path, retries=0)
    assert attempt(opened, blocks[0])
    record_death(opened.task, blocks[1].index, "its worker died")  # while this worker is at work
    assert not attempt(opened, blocks[1])
    assert attempt(opened, blocks[2])
    assert [failure.block for failure in read_failures(opened.task)] == [blocks[1].index]


def test_a_success_takes_back_a_failure_that_left_a_try(tmp_path: Path) -> None:
    opened, blocks = begun(tmp_path, retries=1)
    record_death(opened.task, blocks[3].index, "its former worker died")
    assert attempt(opened, blocks[3])
    assert read_failures(opened.task) == []


def test_no_block_is_tried_once_the_stage_is_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, blocks = begun(tmp_path)
    now = [1000.0]
    monkeypatch.setattr("pipeline.engine.tracking.failures.time.monotonic", lambda: now[0])
    assert attempt(opened, blocks[0])
    end_early(opened.task, "the disk is full")
    now[0] += LOOK_SECONDS
    assert not attempt(opened, blocks[1])
    assert read_failures(opened.task) == [], "it did not fail, it was not tried"


def test_a_worker_whose_own_block_ends_the_stage_begins_no_other(tmp_path: Path) -> None:
    opened, blocks = begun(tmp_path, full_at=1)
    assert attempt(opened, blocks[0])
    assert not attempt(opened, blocks[1])
    assert "No space left on device" in (reason_to_end(opened.task) or "")
    assert not attempt(opened, blocks[2])
