"""A worker and daisy's server: whatever becomes of a block, the server is told at once."""

from __future__ import annotations

import itertools
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import daisy.v2 as daisy
import pytest
from daisy import _daisy as daisy_core
from toy_tasks import Doubled, make_run

from pipeline.engine.blocks.grid import Block
from pipeline.engine.blocks.stage import BlockFunction
from pipeline.engine.executors.scheduling import daisy_tasks_of, pipeline_of, slots
from pipeline.engine.tracking.progress import begin
from pipeline.engine.tracking.worker_records import open_worker_record
from pipeline.engine.workers.worker import StopReason, compute_blocks

ALL = 1000
"""More blocks than there are."""


def stop_before_block(blocks: int) -> StopReason:
    """Tells the worker to stop when it was given so many blocks; the last one is not begun."""
    asked = itertools.count(1)  # before and after each wait
    return lambda: "left: told to" if next(asked) == 2 * blocks else None


@dataclass(frozen=True)
class Ending(Doubled):
    """A task with a block that ends its worker."""

    keeps_records = False

    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        def process_block(block: Block) -> None:
            if block.index == 1:
                raise SystemExit("the library gave up")

        yield process_block


def serve(task: Doubled, start: Callable[..., None]) -> Any:
    """daisy's server, for one worker that is a function in this process; the state of the task at the end."""
    cluster = task.run.config.cluster
    daisy_tasks = daisy_tasks_of([task], [start], cluster)
    states, _ = daisy_core._run_distributed_server(
        pipeline_of([task], daisy_tasks), slots([task], cluster), None, host="127.0.0.1", block_tracking=True
    )
    return states[task.name]


def task_in(directory: Path, kind: type[Doubled], **cluster: Any) -> Doubled:
    task = kind(make_run(directory, cluster={"workers": 1, **cluster}))
    begin(task)
    return task


def test_a_worker_that_comes_after_the_end_leaves_in_peace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_in(tmp_path, Doubled)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    context = daisy.Context(hostname="127.0.0.1", port=port, task_id=task.name, worker_id=0)
    monkeypatch.setenv(daisy.Context.ENV_VARIABLE, context.to_env())
    with caplog.at_level(logging.WARNING):
        assert compute_blocks(task, open_worker_record(task, "0"), stop_before_block(ALL)) == "done"
    assert "the run has ended" in caplog.text


def test_a_block_that_is_not_begun_is_computed_by_the_next_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_in(tmp_path, Doubled)
    said: list[str] = []

    def start(*, context: daisy.Context) -> None:
        monkeypatch.setenv(daisy.Context.ENV_VARIABLE, context.to_env())
        for blocks in (3, ALL):
            said.append(compute_blocks(task, open_worker_record(task, str(len(said))), stop_before_block(blocks)))

    state = serve(task, start)
    assert said == ["left: told to", "done"]
    assert (state.completed_count, state.failed_count) == (len(task.grid), 0)


def test_an_error_that_ends_the_worker_is_told_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_in(tmp_path, Ending, retries=0, worker_restarts=0)
    monkeypatch.setattr(logging.getLogger("daisy"), "disabled", True)  # pytest would keep the error, and it the client

    def start(*, context: daisy.Context) -> None:
        monkeypatch.setenv(daisy.Context.ENV_VARIABLE, context.to_env())
        with suppress(SystemExit):  # daisy's client must die in this thread: no traceback may keep it
            compute_blocks(task, open_worker_record(task, "0"), stop_before_block(ALL))
        compute_blocks(task, open_worker_record(task, "1"), stop_before_block(ALL))

    state = serve(task, start)
    assert (state.completed_count, state.failed_count) == (len(task.grid) - 1, 1)
    assert "SystemExit: the library gave up" in str(state.last_worker_error)
