"""What the status of a run tells in the middle of it, when its driver was killed or blocks failed, and in the end."""

from __future__ import annotations

import json
import time
from pathlib import Path

from killed_runs import BLOCKS, driver_in_the_middle_of, finish, prepared, run_for_kills
from voronoi_run import make_run, store_affinities

from pipeline.engine.status import RunStatus, status_document, write_page
from pipeline.engine.status.model import DriverState, StageState, StageStatus, WorkerState
from pipeline.engine.tracking.driver_lock import only_driver
from pipeline.run import Run
from pipeline.stages.run_status import read_status


def status_of(run: Run) -> RunStatus:
    return read_status(run, run.directory / "config.json")


def page_of(run: Run) -> str:
    path = run.directory / "status.html"
    write_page(path, status_of(run), 10.0)
    return path.read_text()


def stage(status: RunStatus, name: str) -> StageStatus:
    return next(stage for stage in status.stages if stage.name == name)


def test_a_run_in_the_middle_and_after_its_driver_was_killed(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    driver, worker = driver_in_the_middle_of(run, 5)
    try:
        status = status_of(run)
        fragments = stage(status, "fragments")
        assert status.driver.state is DriverState.WORKS and status.driver.process == driver.pid
        assert fragments.state is StageState.RUNNING and fragments.blocks == BLOCKS and fragments.running >= 1
        busy = next(each for each in status.workers if each.process == worker)
        assert busy.block == 5 and busy.state in (WorkerState.BUSY, WorkerState.SLOW)
        assert 'http-equiv="refresh"' in page_of(run)
    finally:
        driver.kill()
        driver.join()
    status = status_of(run)
    assert status.driver.state is DriverState.GONE
    assert stage(status, "fragments").state is StageState.STOPPED
    assert 'http-equiv="refresh"' not in page_of(run)
    (tmp_path / "go").touch()
    with only_driver(run):  # a look at the lock keeps no driver out
        pass
    assert finish(run_for_kills(tmp_path, "serial"))
    status = status_of(run)
    assert {each.state for each in status.stages} == {StageState.DONE}
    assert stage(status, "fragments").done == BLOCKS


def test_a_failed_block_is_told_with_its_place_and_log(tmp_path: Path) -> None:
    run = prepared(tmp_path, "serial")
    (tmp_path / "raise").write_text("5")
    assert not finish(run)
    status = status_of(run)
    fragments = stage(status, "fragments")
    assert (fragments.state, fragments.failed, fragments.done) == (StageState.FAILED, 1, BLOCKS - 1)
    (failure,) = [failure for failure in status.failures if failure.stage == "fragments"]
    assert failure.block == 5 and "told to fail" in failure.error and "--position" in failure.description
    document = json.loads(json.dumps(status_document(status)))
    assert next(each["failed"] for each in document["stages"] if each["name"] == "fragments") == 1


def test_the_page_escapes_what_it_shows_and_loads_nothing(tmp_path: Path) -> None:
    text = page_of(prepared(tmp_path / "<b>run", "serial"))
    assert "&lt;b&gt;run" in text and "<b>run" not in text
    assert "http://" not in text and "https://" not in text


def test_an_empty_run_directory_has_a_status(tmp_path: Path) -> None:
    started = time.time()
    status = status_of(prepared(tmp_path, "serial"))
    assert status.driver.state is DriverState.NONE
    assert stage(status, "fragments").state is StageState.NOT_BEGUN
    assert status.time >= started


def test_the_command_that_goes_on_has_the_config_that_was_asked_about(tmp_path: Path) -> None:
    """The one that the run keeps says what was run; it does not know of a setting that would change that."""
    run = make_run(tmp_path)
    store_affinities(run)
    run.save_config()
    words = read_status(run, Path("my.json")).command.split()
    assert words[-1] == str(run.directory / "config.json")
    other = make_run(tmp_path, fragments={"context": [1, 6, 6], "seed_distance": 4})
    command = read_status(other, Path("my.json"), settings=["fragments.seed_distance=4"]).command
    assert command.endswith("03_extract_fragments.py my.json --set fragments.seed_distance=4")
