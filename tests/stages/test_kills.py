"""Real processes, really killed: the same command finishes, and everything is as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from database_servers import PostgresServer
from graph_stores import Stores
from toy_tasks import make_trouble, visits, wait_until
from voronoi_run import assert_same, everything, make_run, store_affinities

from pipeline.engine.audit.requeue import requeue
from pipeline.engine.blocks.grid import Block
from pipeline.engine.blocks.stage import BlockFunction
from pipeline.engine.chain import run_stages
from pipeline.run import Run, read_json
from pipeline.stages.agglomerate import agglomeration
from pipeline.stages.auditing import audit
from pipeline.stages.by_script import segmentation_stages
from pipeline.stages.fragments import FragmentsTask
from pipeline.stages.region_graph import RagTask

BLOCKS = 2 * 3 * 3


@contextmanager
def troubled(run: Run, process: AbstractContextManager[BlockFunction]) -> Iterator[BlockFunction]:
    """What a worker opens, with the trouble that files in the run directory ask for."""
    with process as process_block:

        def troubled_block(block: Block) -> None:
            make_trouble(run.directory, block)
            process_block(block)

        yield troubled_block


@dataclass(frozen=True)
class TroubledFragments(FragmentsTask):
    """The fragments, with trouble."""

    def process(self) -> AbstractContextManager[BlockFunction]:
        return troubled(self.run, super().process())


@dataclass(frozen=True)
class TroubledGraph(RagTask):
    """The graph, with trouble while the worker is connected."""

    def process(self) -> AbstractContextManager[BlockFunction]:
        return troubled(self.run, super().process())


def prepared(directory: Path, executor: str = "local", **sections: Any) -> Run:
    """A run with affinities; what follows takes worker processes."""
    run = make_run(
        directory,
        cluster={"executor": executor, "workers": 2, "worker_restarts": 2, "passing_pause": 0.2},
        fragments={"context": [1, 6, 6], "seed_distance": 3, "boundary_threshold": 0.7},
        segment={"thresholds": [0.6]},
        **sections,
    )
    store_affinities(run)
    return run


def finish(run: Run) -> bool:
    """The command: affinities to segmentation, with trouble in the stage that a file `graph` says or not."""
    in_graph = (run.directory / "graph").exists()
    blocks = [FragmentsTask(run), TroubledGraph(run)] if in_graph else [TroubledFragments(run), RagTask(run)]
    return run_stages(run, [*blocks, agglomeration(run), *segmentation_stages(run)], False)


def finish_and_exit(run: Run) -> None:
    """The command, in a process of its own."""
    raise SystemExit(0 if finish(run) else 1)


def driver_in_the_middle_of(run: Run, block: int) -> tuple[BaseProcess, int]:
    """A driver whose worker is in the middle of a block; with the process id of that worker."""
    (run.directory / "wait").write_text(str(block))
    driver = multiprocessing.get_context("spawn").Process(target=finish_and_exit, args=(run,))
    driver.start()
    waiting = run.directory / "waiting"
    wait_until(lambda: waiting.exists() and waiting.read_text())
    return driver, int(waiting.read_text())


def lives(process: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    run = prepared(tmp_path_factory.mktemp("undisturbed"), "serial")
    assert finish(run)
    expected = everything(run)
    assert len(expected["nodes.id"]) > 30
    return expected


@pytest.mark.parametrize("victims", ["worker", "driver", "both"])
def test_killed_in_the_middle_of_a_block(tmp_path: Path, undisturbed: dict[str, np.ndarray], victims: str) -> None:
    run = prepared(tmp_path)
    driver, worker = driver_in_the_middle_of(run, 7)
    if victims != "worker":
        os.kill(driver.pid or 0, signal.SIGKILL)
    if victims != "driver":
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not lives(worker))  # also if only its driver was killed: it must not write on alone
    if victims != "worker":
        driver.join()
        assert finish(run)
        done = read_json(run.summary)["stages"]["fragments"]
        assert done["blocks_skipped"] >= 1, "what was done was done"
    else:
        driver.join()
        assert driver.exitcode == 0
    assert visits(tmp_path)[7] == 2
    assert_same(everything(run), undisturbed)


def test_a_database_that_restarts_is_waited_for(
    tmp_path: Path, undisturbed: dict[str, np.ndarray], stores: Stores, postgres: PostgresServer
) -> None:
    if not postgres.owned:
        pytest.skip("the server of EMDISTILL_TEST_POSTGRES_URL is not stopped")
    run = prepared(tmp_path, rag={"url": stores.url("postgresql")})
    (tmp_path / "graph").touch()
    driver, _ = driver_in_the_middle_of(run, 7)
    postgres.stop()
    (tmp_path / "go").touch()
    try:
        wait_until(lambda: any("once more in" in path.read_text() for path in run.logs.rglob("*.*") if path.is_file()))
    finally:
        postgres.start()
    driver.join()
    assert driver.exitcode == 0
    assert_same(everything(run), undisturbed)


def test_a_full_disk_is_one_clear_line_and_no_loss(
    tmp_path: Path, undisturbed: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        run = prepared(disk)
        (disk / "fill_disk").write_text("7")
        assert not finish(run)
        assert "No space left on device" in caplog.text
        assert "make room and run the same command again" in caplog.text
        assert "Traceback" not in caplog.text
        (disk / "ballast").unlink()
        (disk / "fill_disk").unlink()
        assert finish(run)
        assert_same(everything(run), undisturbed)


def test_a_corrupt_chunk_is_found_and_made_again(tmp_path: Path, undisturbed: dict[str, np.ndarray]) -> None:
    run = prepared(tmp_path, "serial")
    assert finish(run)
    chunk = run.volume / "fragments" / "1.1.1"
    chunk.write_bytes(chunk.read_bytes()[:100])
    assert set(requeue(audit(run))) == {"fragments", "rag", "agglomerate", "segment_0.60"}
    assert finish(run)
    assert visits(tmp_path) == {block: 2 if block == 13 else 1 for block in range(BLOCKS)}
    assert all(found.sound for found in audit(run))
    assert_same(everything(run), undisturbed)


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A file system of eight megabytes."""
    path.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small file system to fill")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
