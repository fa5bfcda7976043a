"""Real processes, really killed: the same command finishes, and everything is as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from database_servers import PostgresServer
from graph_stores import Stores
from killed_runs import BLOCKS, driver_in_the_middle_of, finish, prepared, run_for_kills
from run_files import shard_of
from small_disk import small_disk
from toy_tasks import fill_disk, visits, wait_until
from voronoi_run import assert_same, everything

from pipeline.config import ClusterConfig
from pipeline.engine.audit.requeue import requeue
from pipeline.engine.blocks.stage import BlockTask
from pipeline.engine.chain import run_stages
from pipeline.engine.executors import run as executors_run
from pipeline.engine.executors import scheduling
from pipeline.errors import UserError
from pipeline.run import read_json
from pipeline.stages.auditing import audit
from pipeline.stages.fragments import FragmentsTask


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


@pytest.mark.parametrize("victims", ["worker", "driver", pytest.param("both", marks=pytest.mark.slow)])
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
        assert finish(run_for_kills(tmp_path, "serial"))
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
        assert finish(run_for_kills(disk, "serial"))
        assert_same(everything(run), undisturbed)


def test_a_corrupt_chunk_is_found_and_made_again(tmp_path: Path, undisturbed: dict[str, np.ndarray]) -> None:
    run = prepared(tmp_path, "serial")
    assert finish(run)
    chunk = shard_of(run, "fragments", 1, 1, 1)
    chunk.write_bytes(chunk.read_bytes()[:100])
    assert set(requeue(audit(run))) == {"fragments", "rag", "agglomerate", "segment_0.60", "certainty"}
    assert finish(run)
    assert visits(tmp_path) == {block: 2 if block == 13 else 1 for block in range(BLOCKS)}
    assert all(found.sound for found in audit(run))
    assert_same(everything(run), undisturbed)


def test_a_disk_that_is_full_while_daisy_makes_its_markers_leaves_nothing_that_stops_the_next_run(
    tmp_path: Path, undisturbed: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every page of room that there may be left: the markers take a few files."""
    with small_disk(tmp_path / "disk") as disk:
        run = prepared(disk, "serial")
        begun = scheduling.take_room_for_markers
        refused = []

        def take_room_on_a_full_disk(task: BlockTask, cluster: ClusterConfig, pages: int) -> None:
            fill_disk(disk / "ballast")
            os.truncate(disk / "ballast", (disk / "ballast").stat().st_size - 4096 * pages)
            begun(task, cluster)

        for pages in (*range(14), 60, 100):
            monkeypatch.setattr(executors_run, "take_room_for_markers", partial(take_room_on_a_full_disk, pages=pages))
            try:
                run_stages(run, [FragmentsTask(run)], False)
            except UserError as error:
                refused.append(str(error))
            (disk / "ballast").unlink(missing_ok=True)
        monkeypatch.undo()
        assert len(refused) > 3 and all("No space left" in line or "cannot be written" in line for line in refused)
        assert finish(run)
        assert all(found.sound for found in audit(run))
        assert_same(everything(run), undisturbed)


@pytest.fixture(scope="module")
def failed_at_a_block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run whose block 7 failed; to be copied."""
    run = prepared(tmp_path_factory.mktemp("failed") / "run", "serial")
    (run.directory / "raise").write_text("7")
    assert not finish(run)
    (run.directory / "raise").unlink()
    return run.directory


@pytest.mark.parametrize("file", ["zarr.json", "done/zarr.json", "done/c/0/0/0", "failures/zarr.json"])
@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"{}"])
def test_markers_that_cannot_be_read_are_made_anew_from_the_records(
    tmp_path: Path, undisturbed: dict[str, np.ndarray], failed_at_a_block: Path, file: str, content: bytes
) -> None:
    """As a version left them whose disk was full at the wrong moment; what was done stays done."""
    shutil.copytree(failed_at_a_block, tmp_path, dirs_exist_ok=True)
    run = run_for_kills(tmp_path, "serial")
    (FragmentsTask(run).folder / "blocks" / file).write_bytes(content)
    assert finish(run)
    assert visits(tmp_path) == {block: 2 if block == 7 else 1 for block in range(BLOCKS)}
    assert all(found.sound for found in audit(run))
    assert_same(everything(run), undisturbed)
