"""What the engine promises about any task: nothing lost, whatever workers do, and no failure hidden."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_files import shard_of
from toy_tasks import BLOCKS, Doubled, Summed, expected_sums, make_run, result, toy_chain, visits, wait_until

from pipeline.engine.chain import run_stages
from pipeline.engine.executors import hung_workers, local
from pipeline.engine.executors.worker_processes import worker_command
from pipeline.engine.tracking.worker_records import SIGN_SECONDS, worker_records
from pipeline.errors import UserError
from pipeline.run import Run, read_json
from pipeline.terminal import ProgressLines
from pipeline.volumes import open_volume


def stages(run: Run) -> dict[str, dict[str, Any]]:
    return dict(read_json(run.summary)["stages"])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_result_does_not_depend_on_how_many_workers_run(tmp_path: Path, workers: int) -> None:
    cluster = {"executor": "local" if workers else "serial", "workers": max(workers, 1)}
    run = make_run(tmp_path, cluster=cluster)
    assert toy_chain(run)
    np.testing.assert_array_equal(result(run), expected_sums(run))
    output = open_volume(run.volume, "summed")
    assert tuple(output.offset) == (80 + 40, 16, 16 + 8)
    assert output.array.chunks == (4, 4, 4)
    assert visits(tmp_path) == dict.fromkeys(range(BLOCKS), 1)
    for stage in ("doubled", "summed"):
        entry = stages(run)[stage]
        assert (entry["blocks_done"], entry["blocks_failed"], entry["blocks_skipped"]) == (BLOCKS, 0, 0)
        assert entry["seconds"] > 0
        assert entry["voxels_per_second"] > 0
        assert entry["peak_worker_memory"] > 1_000_000


def test_one_voxel_edge_blocks_are_written(tmp_path: Path) -> None:
    run = make_run(tmp_path, shape=(6, 11, 10))  # the region has 5 x 9 x 9 voxels
    assert toy_chain(run)
    np.testing.assert_array_equal(result(run), expected_sums(run))


@pytest.mark.parametrize("executor", ["serial", "local"])
def test_a_failing_block_is_reported_and_only_what_needs_it_waits(
    tmp_path: Path, executor: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path, cluster={"executor": executor})
    (tmp_path / "raise").write_text("0")
    with caplog.at_level(logging.ERROR):
        assert not toy_chain(run)
    assert "block 0: ValueError: block 0 was told to fail" in caplog.text
    assert "block 0 at (120, 16, 24) to (280, 48, 56) nm" in caplog.text
    assert "in process_block" in caplog.text, "where in the code"
    assert f"workflows/07_view.py {tmp_path / 'config.json'} --position 200,32,40" in caplog.text
    assert visits(tmp_path) == dict.fromkeys(range(BLOCKS), 1), "an error of the data is not tried again"
    assert stages(run)["doubled"]["blocks_failed"] == 1
    assert stages(run)["doubled"]["blocks_done"] == BLOCKS - 1
    assert 0 < stages(run)["summed"]["blocks_done"] < BLOCKS
    assert stages(run)["summed"]["blocks_orphaned"] == BLOCKS - stages(run)["summed"]["blocks_done"]
    (tmp_path / "raise").unlink()
    assert toy_chain(run)
    np.testing.assert_array_equal(result(run), expected_sums(run))
    assert visits(tmp_path) == {0: 2} | dict.fromkeys(range(1, BLOCKS), 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_costs_its_block_only(tmp_path: Path, workers: int) -> None:
    """Not the whole run either: workers of the next stage take its place, and wait for its block."""
    run = make_run(tmp_path, cluster={"executor": "local", "workers": workers})
    (tmp_path / "die_once").write_text("3")
    assert toy_chain(run)
    np.testing.assert_array_equal(result(run), expected_sums(run))
    assert visits(tmp_path)[3] == 2


@pytest.mark.parametrize("trouble", ["reset_twice", "fail_twice"])
def test_a_block_that_fails_twice_and_then_succeeds_is_done(tmp_path: Path, trouble: str) -> None:
    run = make_run(tmp_path)
    (tmp_path / trouble).write_text("3")
    assert toy_chain(run)
    assert visits(tmp_path)[3] == 3
    np.testing.assert_array_equal(result(run), expected_sums(run))


@pytest.mark.parametrize("executor", ["serial", "local"])
def test_when_all_fail_alike_the_stage_ends_with_that_error(
    tmp_path: Path, executor: str, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = {"executor": executor, "identical_failures": 3, "worker_restarts": 1}
    run = make_run(tmp_path, cluster=cluster)
    (tmp_path / "raise").write_text(" ".join(map(str, range(BLOCKS))))
    with caplog.at_level(logging.ERROR):
        assert not toy_chain(run)
    assert "blocks fail alike, block 0: ValueError: block 0 was told to fail" in caplog.text
    assert 3 <= len(visits(tmp_path)) <= 4, "each worker may have had one more under way"
    (tmp_path / "raise").unlink()
    assert toy_chain(run)
    np.testing.assert_array_equal(result(run), expected_sums(run))


def test_a_hanging_block_is_killed_tried_again_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path, cluster={"executor": "local", "block_timeout": 2.0, "retries": 1})
    (tmp_path / "hang_once").write_text("3")
    (tmp_path / "hang").write_text("5")
    with caplog.at_level(logging.ERROR):
        assert not toy_chain(run)
    assert visits(tmp_path)[3] == 2
    assert "doubled: 1 of 12 blocks failed" in caplog.text
    assert "block 5: its worker took longer than cluster.block_timeout (2.0 s); its log: " in caplog.text
    (tmp_path / "hang").unlink()
    assert toy_chain(run)
    np.testing.assert_array_equal(result(run), expected_sums(run))


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Gives workers no more than so many megabytes, as `ulimit -v` does."""

    def limit(megabytes: int) -> None:
        limited = ["bash", "-c", f'ulimit -v {megabytes << 10}; exec "$@"', "limited"]
        monkeypatch.setattr(local, "worker_command", lambda task: [*limited, *worker_command(task)])

    return limit


def test_blocks_that_have_too_little_memory_end_the_stage_with_the_keys_that_help(
    tmp_path: Path, little_memory: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    little_memory(1500)
    run = make_run(tmp_path, cluster={"executor": "local", "retries": 1})
    (tmp_path / "hog").write_text(" ".join(map(str, range(BLOCKS))))
    with caplog.at_level(logging.ERROR):
        assert not run_stages(run, [Doubled(run)], False)
    assert "too little memory (MemoryError: Unable to allocate 1.00 GiB" in caplog.text
    assert "lower cluster.workers, predict.block_size, cluster.threads_per_worker" in caplog.text
    assert "Traceback" not in caplog.text
    assert sum(visits(tmp_path).values()) < 2 * BLOCKS, "others need as much"


def test_workers_that_have_too_little_memory_to_begin_end_the_stage(
    tmp_path: Path, little_memory: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    little_memory(120)
    run = make_run(tmp_path, cluster={"executor": "local"})
    with caplog.at_level(logging.ERROR):
        assert not run_stages(run, [Doubled(run)], False)
    assert "no worker could begin for too little memory" in caplog.text
    assert "lower cluster.workers" in caplog.text
    assert not visits(tmp_path)


def waiting_worker(directory: Path) -> Callable[[], int | None]:
    """The process that waits in a block, once it does."""

    def process() -> int | None:
        path = directory / "waiting"
        return int(path.read_text() or 0) if path.exists() else None

    return process


def stop_whoever(
    directory: Path, condition: Callable[[], int | None], number: int = signal.SIGSTOP
) -> threading.Thread:
    """A thread that stops a worker, once a condition gives its process id."""

    def stop() -> None:
        process: list[int] = []
        while not process:
            process = [found for found in [condition()] if found]
            time.sleep(0.01)
        os.kill(process[0], number)
        (directory / "go").touch()

    thread = threading.Thread(target=stop)
    thread.start()
    return thread


def test_ctrl_c_reaches_no_worker_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A terminal sends it to all processes of a command; the driver alone decides what becomes of its workers."""
    run = make_run(tmp_path, cluster={"executor": "local", "workers": 2})
    (tmp_path / "wait").write_text("3")
    stopping = stop_whoever(tmp_path, waiting_worker(tmp_path), signal.SIGINT)
    assert toy_chain(run)
    stopping.join()
    assert visits(tmp_path) == dict.fromkeys(range(BLOCKS), 1)
    assert "died" not in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_progress_is_told_stops_the_driver(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """daisy passes over what is raised while it tells of progress: without the signal, the run went on to its end."""
    run = make_run(tmp_path, cluster={"executor": "local", "workers": 2})
    (tmp_path / "wait").write_text("3")
    tell = ProgressLines.tell

    def interrupted(lines: ProgressLines, done: int, note: str = "") -> None:
        tell(lines, done, note)
        if (tmp_path / "waiting").exists() and not (tmp_path / "go").exists():
            (tmp_path / "go").touch()
            signal.raise_signal(number)

    monkeypatch.setattr(ProgressLines, "tell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        toy_chain(run)
    assert toy_chain(run)
    np.testing.assert_array_equal(result(run), expected_sums(run))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_stopped_in_a_block_is_killed_and_its_block_done_by_another(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own watchdog is stopped with it."""
    monkeypatch.setattr(hung_workers, "GRACE_SECONDS", 1.0)
    run = make_run(tmp_path, cluster={"executor": "local", "workers": workers, "block_timeout": 4.0, "retries": 1})
    (tmp_path / "wait").write_text("3")
    stopping = stop_whoever(tmp_path, waiting_worker(tmp_path))
    assert toy_chain(run)
    stopping.join()
    np.testing.assert_array_equal(result(run), expected_sums(run))
    assert visits(tmp_path)[3] == 2
    assert "longer than cluster.block_timeout (4.0 s): it was stopped, or hung in a system call" in caplog.text


def test_a_worker_that_is_stopped_while_it_waits_for_a_block_does_not_keep_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hung_workers, "GRACE_SECONDS", 1.0)
    # daisy does not always tell when a task is over
    monkeypatch.setattr(hung_workers, "IDLE_SECONDS", 2 * SIGN_SECONDS)
    run = make_run(tmp_path, cluster={"executor": "local", "workers": 2})
    (tmp_path / "wait").write_text("3")

    def idle() -> int | None:
        """Waits for block 3 of the stage before."""
        waiting = [record for record in worker_records(Summed(run)) if record.at_work and not record.blocks]
        return next((record.process for record in waiting if time.time() - record.heard > 1), None)

    stopping = stop_whoever(tmp_path, idle)
    assert toy_chain(run)
    stopping.join()
    np.testing.assert_array_equal(result(run), expected_sums(run))
    assert visits(tmp_path) == dict.fromkeys(range(BLOCKS), 1)
    assert "it is killed" in caplog.text


def test_a_second_driver_is_refused_in_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / "wait").write_text("3")
    driver = multiprocessing.get_context("spawn").Process(target=toy_chain, args=(run,))
    driver.start()
    wait_until((tmp_path / "waiting").exists)
    with pytest.raises(UserError, match=rf"process {driver.pid} on .* works on this run directory"):
        toy_chain(run)
    (tmp_path / "go").touch()
    driver.join()
    assert driver.exitcode == 0
    assert toy_chain(run)


def test_a_missing_upstream_chunk_is_no_zeros_but_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path)
    assert run_stages(run, [Doubled(run)], False)
    shard_of(run, "doubled", 1, 1, 2).unlink()
    with caplog.at_level(logging.ERROR):
        assert not run_stages(run, [Summed(run)], False)
    assert "doubled: shard c/1/1/2 is missing" in caplog.text
    assert f"python workflows/audit.py {tmp_path / 'config.json'} --requeue" in caplog.text
    assert stages(run)["summed"]["blocks_done"] == BLOCKS - 1


@pytest.mark.parametrize("executor", ["serial", "local"])
def test_a_corrupt_chunk_fails_the_block_that_reads_it_and_is_named(
    tmp_path: Path, executor: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path, cluster={"executor": executor, "retries": 0})
    assert run_stages(run, [Doubled(run)], False)
    chunk = shard_of(run, "doubled", 1, 1, 2)
    chunk.write_bytes(chunk.read_bytes()[:20])
    with caplog.at_level(logging.ERROR):
        assert not run_stages(run, [Summed(run)], False)
    assert "doubled" in caplog.text
    assert "shard c/1/1/2 is truncated" in caplog.text
    assert stages(run)["summed"]["blocks_done"] == BLOCKS - 1
