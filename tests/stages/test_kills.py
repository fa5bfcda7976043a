"""Real processes, really killed: the same command finishes, and everything is as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from database_servers import PostgresServer
from graph_stores import Stores
from killed_runs import BLOCKS, driver_in_the_middle_of, finish, prepared
from run_files import shard_of
from toy_tasks import visits, wait_until
from voronoi_run import assert_same, everything

from pipeline.engine.audit.requeue import requeue
from pipeline.run import read_json
from pipeline.stages.auditing import audit


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
    chunk = shard_of(run, "fragments", 1, 1, 1)
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
