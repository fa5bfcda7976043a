"""Both formats of a run hold the same voxels; a run goes on in the one that it was begun with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from run_files import shard_of
from storage_counts import file_names
from voronoi_run import assert_same, everything, make_run, store_affinities

from pipeline.engine.audit.arrays import Damage
from pipeline.engine.audit.requeue import requeue
from pipeline.engine.plan import plan_lines
from pipeline.engine.tracking.progress import progress_of
from pipeline.run import Run
from pipeline.stages.auditing import audit
from pipeline.stages.by_script import agglomerate, extract_fragments, segment, segmentation_stages
from pipeline.stages.fragments import FragmentsTask
from pipeline.stages.segment import written_segmentations
from pipeline.volumes import StorageFormat, container_format, create_volume

SECTIONS: dict[str, Any] = {"agglomerate": {"method": "waterz", "context": [1, 6, 6]}}


def begun(directory: Path, storage_format: int) -> Run:
    """A run with affinities and fragments."""
    run = make_run(directory, storage={"format": storage_format}, **SECTIONS)
    store_affinities(run)
    assert extract_fragments(run)
    return run


def finished(run: Run) -> Run:
    assert agglomerate(run) and segment(run)
    return run


@pytest.fixture(scope="module")
def in_format_3(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished(begun(tmp_path_factory.mktemp("three"), 3))


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Begun in format 2, and finished by a config that says nothing of formats."""
    directory = tmp_path_factory.mktemp("two")
    begun(directory, 2)
    return finished(make_run(directory, **SECTIONS))


def test_a_run_begun_in_format_2_goes_on_in_it_and_gives_the_same_voxels(in_format_3: Run, continued: Run) -> None:
    assert continued.config.storage.format == 3
    assert (container_format(continued.volume), container_format(in_format_3.volume)) == (2, 3)
    assert not [name for name in file_names(continued.volume.file) if name.endswith("zarr.json")]
    assert (continued.volume / "segmentation" / "0.60" / ".zarray").file.is_file()
    assert_same(everything(continued), everything(in_format_3))
    for theirs, ours in zip(segmentation_stages(continued), segmentation_stages(in_format_3), strict=True):
        assert theirs.key == ours.key, theirs.name
        assert progress_of(theirs) is progress_of(ours)
    assert [task.name for task in written_segmentations(continued)] == ["segment_0.30", "segment_0.60"]
    assert [task.name for task in written_segmentations(in_format_3)] == ["segment_0.30", "segment_0.60"]


@pytest.mark.parametrize("made", ["in_format_3", "continued"])
def test_damage_in_either_format_is_found_and_made_again(
    made: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    original: Run = request.getfixturevalue(made)
    shutil.copytree(original.directory, tmp_path, dirs_exist_ok=True)
    run = Run(original.config.model_copy(update={"run_directory": str(tmp_path)}))
    shard_of(run, "fragments", 1, 1, 1).unlink()
    truncated = shard_of(run, "segmentation/0.30", 0, 0, 0)
    truncated.write_bytes(truncated.read_bytes()[:-1])
    findings = audit(run)
    found = {f.stage.name: {kind: f.count(kind) for kind in Damage if f.count(kind)} for f in findings}
    assert found["fragments"][Damage.MISSING] == 1 and found["segment_0.30"] == {Damage.UNREADABLE: 1}
    assert not found["predict"] and not found["segment_0.60"]
    requeue(findings)
    assert extract_fragments(run)
    finished(run)
    assert_same(everything(run), everything(original))
    assert container_format(run.volume) == container_format(original.volume)


def files_told(directory: Path, storage_format: StorageFormat, block: int) -> str:
    """The line on files in the plan of the fragments of 512 x 512 x 512 voxels."""
    place: dict[str, Any] = {"voxel_size": (8, 8, 8), "chunks": (block,) * 3}
    create_volume(directory / "volume.zarr", "raw", (512,) * 3, "uint8", storage_format=storage_format, **place)
    run = make_run(
        directory,
        volumes={"segment": {"source": "a"}},
        predict={"block_size": [block] * 3},
        fragments={"context": [8, 8, 8]},
        storage={"format": storage_format},
    )
    task = FragmentsTask(run)
    (line,) = [line for line in plan_lines(task, progress_of(task)) if line.strip().startswith("files")]
    return line.partition("files")[2].strip()


def test_a_plan_counts_files_and_tells_the_chunks_in_them(tmp_path: Path) -> None:
    """Chunks of 64 voxels in shards of 256 are 64 times fewer files than chunks of 64 voxels that are files."""
    told = files_told(tmp_path / "3", 3, 256)
    assert told == "8 shards, one per block, no two blocks share one; in chunks of 64×64×64 voxels"
    assert files_told(tmp_path / "2", 2, 64) == "512 chunks, one per block, no two blocks share one"
