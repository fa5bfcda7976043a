"""Import block by block: killed it goes on, two at once do not meet, and what was lost afterwards is told."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
import tracemalloc
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from funlib.geometry import Coordinate
from imported_sources import run_of_sources
from threadpoolctl import threadpool_info, threadpool_limits
from toy_tasks import wait_until

from pipeline import api
from pipeline.datasets.importing import imported_identity
from pipeline.datasets.source import OpenDataset
from pipeline.engine.audit.arrays import Damage
from pipeline.engine.audit.requeue import requeue
from pipeline.engine.blocks.storage import open_raw
from pipeline.engine.status.model import StageState
from pipeline.errors import UserError
from pipeline.run import Run, read_json
from pipeline.stages import convert, importing
from pipeline.stages.auditing import audit
from pipeline.stages.convert import all_conversions, conversions, read_block, shards_per_block
from pipeline.stages.importing import ensure_imported
from pipeline.stages.run_status import read_status
from pipeline.training.sampling.regions import ChunkCache, training_regions
from pipeline.volumes import Box, open_volume, storage_threads, volume_exists

BLOCK = (4, 16, 16)
SHAPE = (12, 48, 40)
BLOCKS = 27
"""Of raw, and as many of the labels."""


def volume(path: Path) -> np.ndarray:
    """A file with noise as raw and its half as labels."""
    raw = np.random.default_rng(0).integers(1, 255, SHAPE, dtype=np.uint8)
    with h5py.File(path, "w") as file:
        file.attrs["voxel_size"] = [40, 8, 8]
        file.create_dataset("raw", data=raw, chunks=(2, 16, 16), compression="gzip")
        file.create_dataset("labels", data=(raw // 2 + 1).astype(np.uint32), chunks=(4, 8, 8))
    return raw


def run_of(directory: Path, **sections: Any) -> Run:
    source = {"kind": "file", "path": str(directory / "a.h5")}
    return run_of_sources(directory / "run", BLOCK, {"lab": source}, **sections)


@pytest.fixture
def raw(tmp_path: Path) -> np.ndarray:
    return volume(tmp_path / "a.h5")


def shard_files(run: Run, dataset: str) -> list[Path]:
    array = open_volume(run.volume, dataset).array
    return [array.file(position) for position in np.ndindex(*array.grid_shape)]


def assert_arrived(run: Run, raw: np.ndarray) -> None:
    np.testing.assert_array_equal(open_volume(run.volume, "raw").array[:], raw)
    np.testing.assert_array_equal(open_volume(run.volume, "labels").array[:], raw // 2 + 1)
    assert all(found.sound for found in audit(run))


def import_and_wait(run: Run, blocks: int) -> None:
    """In a process of its own: convert so many blocks, say so, and wait in the next one for the word to go on."""
    begun = 0

    def slow_read(dataset: OpenDataset, box: Box) -> np.ndarray:
        nonlocal begun
        begun += 1
        if begun == blocks + 1:
            (run.directory / "waiting").touch()
            while not (run.directory / "go").exists():
                time.sleep(0.01)
        return read_block(dataset, box)

    convert.read_block = slow_read
    ensure_imported(run)


def import_under_way(run: Run, blocks: int) -> BaseProcess:
    driver = multiprocessing.get_context("spawn").Process(target=import_and_wait, args=(run, blocks))
    driver.start()
    wait_until((run.directory / "waiting").exists)
    return driver


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many blocks are converted in this process from now on."""
    count: Counter[str] = Counter()

    def counted(dataset: OpenDataset, box: Box) -> np.ndarray:
        count[dataset.dtype.name] += 1
        return read_block(dataset, box)

    monkeypatch.setattr(convert, "read_block", counted)
    return count


def test_a_killed_import_goes_on_with_the_blocks_that_are_missing(
    tmp_path: Path, raw: np.ndarray, converted: Counter[str]
) -> None:
    run, done = run_of(tmp_path), 40
    driver = import_under_way(run, done)
    os.kill(driver.pid or 0, signal.SIGKILL)
    driver.join()
    assert imported_identity(run.volume) is None
    statuses = read_status(run, Path("config.json")).stages
    unfinished = next(status for status in statuses if status.stage == "import" and status.done < BLOCKS)
    assert unfinished.state is StageState.STOPPED
    ensure_imported(run)
    assert 2 * BLOCKS - done <= converted.total() <= 2 * BLOCKS - done + 1
    assert_arrived(run, raw)
    assert read_json(run.summary)["stages"]["import"]["blocks_done"] == converted.total()


def test_two_imports_at_once_do_not_disturb_each_other(tmp_path: Path, raw: np.ndarray) -> None:
    run = run_of(tmp_path)
    first = import_under_way(run, 10)
    with pytest.raises(UserError, match=rf"process {first.pid} on .* works on this run directory; wait for it"):
        ensure_imported(run)
    assert first.is_alive() and imported_identity(run.volume) is None
    (run.directory / "go").touch()
    first.join()
    assert first.exitcode == 0
    assert imported_identity(run.volume) is not None
    assert_arrived(run, raw)


def test_workers_give_the_same_as_this_process(
    tmp_path: Path, raw: np.ndarray, monkeypatch: pytest.MonkeyPatch, converted: Counter[str]
) -> None:
    monkeypatch.setattr(importing, "IN_THIS_PROCESS", 0)
    run = run_of(tmp_path, cluster={"executor": "local", "workers": 2})
    ensure_imported(run)
    assert not converted, "it was left to the workers"
    assert_arrived(run, raw)
    assert (run.logs / "import_lab_raw").is_dir()


def test_little_needs_no_workers(tmp_path: Path, raw: np.ndarray, converted: Counter[str]) -> None:
    run = run_of(tmp_path, cluster={"executor": "local", "workers": 2})
    ensure_imported(run)
    assert converted == {"uint8": BLOCKS, "uint64": BLOCKS}
    assert_arrived(run, raw)


def test_this_process_has_its_threads_afterwards(tmp_path: Path, raw: np.ndarray) -> None:
    """A training may follow in the same process."""
    run = run_of(tmp_path, cluster={"executor": "local", "threads_per_worker": 1})
    with threadpool_limits(3):
        before = [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()], storage_threads()
        ensure_imported(run)
        assert ([(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()], storage_threads()) == before


def test_other_data_start_over(tmp_path: Path, raw: np.ndarray, converted: Counter[str]) -> None:
    """What was half converted of a file that has changed since must not stay."""
    run = run_of(tmp_path)
    driver = import_under_way(run, 20)
    os.kill(driver.pid or 0, signal.SIGKILL)
    driver.join()
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["raw"][:] = raw = raw[::-1]
        file["labels"][:] = raw // 2 + 1
    ensure_imported(run)
    assert converted == {"uint8": BLOCKS, "uint64": BLOCKS}
    assert_arrived(run, raw)


def test_a_source_with_damaged_chunks_is_told_in_two_lines(
    tmp_path: Path, raw: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    """And not block by block with how to look at it: the viewer shows nothing of what is not imported."""
    with h5py.File(tmp_path / "a.h5") as file:
        chunks = [file["raw"].id.get_chunk_info(number) for number in range(4)]
    with (tmp_path / "a.h5").open("r+b") as file:
        for chunk in chunks:
            file.seek(chunk.byte_offset)
            file.write(b"\xff" * 100)
    with pytest.raises(UserError, match=r"a\.h5/raw: a chunk in voxels .* cannot be read"):
        ensure_imported(run_of(tmp_path))
    (told,) = (record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    assert told.startswith("import_lab_raw: 4 of 27 blocks failed")


@pytest.mark.parametrize("storage_format", [2, 3])
@pytest.mark.parametrize("dataset", ["raw", "labels"])
def test_a_lost_chunk_is_told_and_made_again(
    tmp_path: Path, raw: np.ndarray, dataset: str, storage_format: int, converted: Counter[str]
) -> None:
    run = run_of(tmp_path, storage={"format": storage_format})
    ensure_imported(run)
    lost = shard_files(run, dataset)[5]
    lost.unlink()
    told = r"is missing; .*audit\.py .*--requeue and then .*import_data\.py .* have it converted again"
    with pytest.raises(UserError, match=told):
        (open_raw(run) if dataset == "raw" else run.open_labels("lab")).read(Box.of_shape(SHAPE))
    with pytest.raises(UserError, match=r"(shard|chunk) .* is missing.*--requeue has it made again"):
        api.evaluate(run)
    converted.clear()
    ensure_imported(run)
    assert not converted, "nothing says yet that it is not complete"
    found = next(found for found in audit(run) if found.stage.name == f"import_lab_{dataset}")
    assert found.count(Damage.MISSING) == 1 and int(found.blocks().sum()) == 1
    requeue(audit(run))
    ensure_imported(run)
    assert converted.total() == 1
    assert_arrived(run, raw)


def test_training_is_told_of_a_lost_chunk(tmp_path: Path, raw: np.ndarray) -> None:
    volumes = {
        "sources": {"lab": {"kind": "file", "path": str(tmp_path / "a.h5")}},
        "segment": {"source": "lab"},
        "train": [{"source": "lab"}],
        "import_block": list(BLOCK),
    }
    run = run_of_sources(tmp_path / "run", BLOCK, volumes["sources"], volumes=volumes)  # type: ignore[arg-type]
    ensure_imported(run)
    for dataset in ("raw", "labels"):
        lost = shard_files(run, dataset)[-1]
        content = lost.read_bytes()
        lost.unlink()
        (region,) = training_regions(run)
        read = region.read_raw if dataset == "raw" else region.read_labels
        read(Box(Coordinate(0, 0, 0), Coordinate(4, 16, 16)), ChunkCache())
        with pytest.raises(UserError, match=r"chunk .* is missing; .*audit\.py"):
            read(region.box, ChunkCache())
        lost.write_bytes(content)


def test_a_file_is_looked_for_once(tmp_path: Path, raw: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path)
    ensure_imported(run)
    opened = open_raw(run)
    opened.read(opened.box)
    monkeypatch.setattr("pipeline.volumes.stored_keys.exists", lambda *_: pytest.fail("it was seen before"))
    np.testing.assert_array_equal(opened.read(opened.box), raw)


def test_markers_alone_do_not_count(tmp_path: Path, raw: np.ndarray, converted: Counter[str]) -> None:
    """A block that is marked as done, but has no record or no file, is converted again before anything is noted."""
    run = run_of(tmp_path)
    driver = import_under_way(run, 40)
    os.kill(driver.pid or 0, signal.SIGKILL)
    driver.join()
    task = conversions(run, "lab")[0]
    shard_files(run, task.part)[0].unlink()
    with task.records.path.open("r+b") as file:
        file.seek(24 * 3)
        file.write(bytes(24))
    ensure_imported(run)
    assert converted.total() >= 2 * BLOCKS - 40 + 2
    assert_arrived(run, raw)


def test_a_file_that_declares_a_petavoxel_is_refused_at_once(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["voxel_size"] = [40, 8, 8]
        file.create_dataset("raw", (10**5, 10**5, 10**5), np.uint8, chunks=(64, 64, 64))
    assert (tmp_path / "a.h5").stat().st_size < 10_000
    run = run_of(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"needs .* before compression \(raw of lab: 100000 x 100000 x 100000"):
            ensure_imported(run)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()
    assert not volume_exists(run.volume, "raw")


def test_room_is_checked_before_the_first_block(
    tmp_path: Path, raw: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = shutil.disk_usage(tmp_path)
    run = run_of(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=400))
    with pytest.raises(UserError, match="400 bytes are free: choose another run_directory"):
        ensure_imported(run)
    assert not volume_exists(run.volume, "raw")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=20_000))
    ensure_imported(run)
    assert "it may not fit" in caplog.text
    assert_arrived(run, raw)


def test_a_dry_run_says_what_would_be_written(tmp_path: Path, raw: np.ndarray) -> None:
    run = run_of(tmp_path)
    tasks = importing.plan_conversions(run)
    assert [task.name for task in tasks] == ["import_lab_raw", "import_lab_labels"]
    assert [len(task.grid) for task in tasks] == [BLOCKS, BLOCKS]
    assert not run.directory.exists()
    ensure_imported(run)
    assert not importing.plan_conversions(run)
    assert [task.name for task in all_conversions(run)] == ["import_lab_raw", "import_lab_labels"]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [((1, 400, 400), (1, 7, 13)), ((40, 1, 40), (3, 1, 3)), ((7, 7, 7), (2, 1, 1)), ((999, 999, 999), (3, 7, 13))],
)
def test_blocks_hold_whole_chunks(chunks: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    found = shards_per_block(Coordinate(4, 16, 16), Coordinate(chunks), Coordinate(9, 100, 200))
    assert found == Coordinate(expected)


def test_a_block_beyond_the_memory_goes_through_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "IN_MEMORY", 10_000)
    values = np.random.default_rng(0).integers(0, 255, (12, 50, 60), dtype=np.uint8)
    asked: list[Box] = []

    def read(box: Box) -> np.ndarray:
        asked.append(box)
        return values[box.slices]

    place = (1.0, 1.0, 1.0)
    dataset = OpenDataset(Coordinate(values.shape), place, place, values.dtype, read, Coordinate(2, 50, 60))
    found = read_block(dataset, Box(Coordinate(2, 0, 0), Coordinate(12, 50, 60)))
    np.testing.assert_array_equal(found, values[2:])
    assert [(box.begin[0], box.end[0]) for box in asked] == [(z, z + 2) for z in range(2, 12, 2)]
