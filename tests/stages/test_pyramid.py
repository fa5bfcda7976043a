"""Coarser levels of a run's arrays: exact for any blocks, valid OME-NGFF, tracked and audited as every stage is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
from run_files import shard_of
from slurm_cluster import SlurmCluster
from stored_arrays import write_zarr3
from voronoi_run import make_run, store_affinities, stored
from yaozarrs import v05

from pipeline.api import import_data
from pipeline.config import dump_config, parse_config
from pipeline.engine.audit.arrays import Damage
from pipeline.engine.audit.requeue import requeue
from pipeline.engine.chain import run_stages
from pipeline.engine.pilot import log_pilots
from pipeline.engine.plan import plan_lines
from pipeline.engine.tracking.progress import Progress, progress_of
from pipeline.run import Run
from pipeline.small_files import read_json
from pipeline.stages.auditing import audit
from pipeline.stages.by_script import extract_fragments, known_stages, predict, run_chain, segment
from pipeline.stages.export.targets import ExportOptions, export_stages
from pipeline.stages.pyramid import RawPyramid, fragments_pyramid, raw_pyramid
from pipeline.units import disk_size
from pipeline.volumes import open_volume
from pipeline.volumes.pyramids import downsample

FACTORS = [(1, 2, 2), (1, 4, 4), (2, 8, 8)]
"""Of 40 x 8 x 8 nm."""


def arrays_of(run: Run) -> Path:
    """The container of the run's arrays, on this machine."""
    return run.directory / "volume.zarr"


def make(directory: Path, **sections: Any) -> Run:
    run = make_run(directory, **{"pyramid": {"smallest": 6}, "segment": {"thresholds": [0.6]}, **sections})
    store_affinities(run)
    return run


def finish(run: Run) -> Run:
    assert run_chain(run) and segment(run)
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finish(make(tmp_path_factory.mktemp("finished")))


def levels_of(run: Run, name: str) -> list[np.ndarray]:
    """The array and its coarser levels."""
    return [stored(run, name), *(stored(run, f"{name}/s{level}") for level in (1, 2, 3))]


@pytest.mark.parametrize(
    ("name", "method"), [("raw", "mean"), ("fragments", "majority"), ("segmentation/0.60", "majority")]
)
def test_each_level_is_the_one_before_downsampled_as_a_whole(finished: Run, name: str, method: Any) -> None:
    levels = levels_of(finished, name)
    assert [level.shape for level in levels] == (
        [(9, 42, 38), (9, 21, 19), (9, 11, 10), (5, 6, 5)]
        if name == "raw"
        else [(8, 40, 35), (8, 20, 18), (8, 10, 9), (4, 5, 5)]
    )
    for before, level, step in zip(levels, levels[1:], [(1, 2, 2), (1, 2, 2), (2, 2, 2)], strict=False):
        np.testing.assert_array_equal(level, downsample(before, step, method))
        if method == "majority":
            assert set(np.unique(level)) <= set(np.unique(before))
    assert len(np.unique(levels[2])) > 5


def test_levels_are_one_valid_image_whose_voxels_lie_where_they_were(finished: Run) -> None:
    for name, begin in {"raw": (0, 0, 0), "fragments": (40, 16, 24), "segmentation/0.60": (40, 16, 24)}.items():
        image = yaozarrs.validate_zarr_store(str(arrays_of(finished) / name)).ome_metadata()
        assert isinstance(image, v05.Image)
        datasets = image.multiscales[0].datasets
        assert [dataset.path for dataset in datasets] == ["s0", "s1", "s2", "s3"]
        for dataset, factors in zip(datasets, [(1, 1, 1), *FACTORS], strict=True):
            scale, translation = dataset.coordinateTransformations
            assert isinstance(scale, v05.ScaleTransformation)
            assert isinstance(translation, v05.TranslationTransformation)
            assert scale.scale == [s * f for s, f in zip((40, 8, 8), factors, strict=True)]
            # the corner of the first voxel stays where it is; a translation is of the centre, of the finest level
            # counted from the corner
            moved = [b + s * (f - 1) / 2 for b, s, f in zip(begin, (40, 8, 8), factors, strict=True)]
            assert translation.translation == moved
        coarse = open_volume(finished.volume, f"{name}/s3")
        assert tuple(coarse.voxel_size) == (80, 64, 64) and tuple(coarse.offset) == begin
    yaozarrs.validate_zarr_store(str(arrays_of(finished)))
    assert finished.segmentation_names() == ["0.60"], "a level is no segmentation"


@pytest.mark.parametrize("block", [[3, 7, 11], [8, 40, 35], [5, 16, 9]])
def test_blocks_of_any_size_and_any_number_of_workers_give_the_same_levels(
    tmp_path: Path, finished: Run, block: list[int]
) -> None:
    size = {"block_size": block, "tile_size": block}
    run = make(tmp_path, predict=size, cluster={"executor": "local", "workers": 2})
    assert run_stages(run, raw_pyramid(run), False)
    for ours, theirs in zip(levels_of(run, "raw"), levels_of(finished, "raw"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for task in raw_pyramid(run):
        array = task.open().array
        shards = {position for block in task.grid for position, _ in array.shards_in(task.stored_box(block.box))}
        assert len(shards) == len(task.grid) == array.present().sum(), "a shard per block, and none shared"


def test_damage_in_a_level_and_in_what_it_is_made_of_is_found_and_mended(tmp_path: Path) -> None:
    run = finish(make(tmp_path))
    expected = levels_of(run, "fragments")
    assert all(found.sound for found in audit(run))
    shard_of(run, "fragments/s1", 1, 1, 0).unlink()
    shard_of(run, "raw/s2", 0, 0, 0).write_bytes(b"short")
    shard_of(run, "segmentation/0.60/s1", 0, 0, 0).unlink()
    findings = audit(run)
    damaged = {f.stage.name: {kind for kind in Damage if f.count(kind)} for f in findings if not f.sound}
    assert damaged == {
        "fragments_s1": {Damage.MISSING},
        "raw_s2": {Damage.UNREADABLE},
        "segmentation_0.60_s1": {Damage.MISSING},
    }
    redo = requeue(findings)
    assert set(redo) >= {"fragments_s2", "fragments_s3", "raw_s3", "segmentation_0.60_s3"} and "fragments" not in redo
    finish(run)
    assert read_json(run.summary)["stages"]["fragments_pyramid"]["blocks_done"] >= 3
    for ours, theirs in zip(levels_of(run, "fragments"), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert all(found.sound for found in audit(run))


def test_a_changed_array_takes_its_levels_along(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert extract_fragments(run)
    changed = make_run(tmp_path, pyramid={"smallest": 6}, fragments={"seed_distance": 5})
    assert progress_of(fragments_pyramid(changed)[0]) is Progress.STALE
    assert extract_fragments(changed, overwrite=True)
    levels = levels_of(changed, "fragments")
    np.testing.assert_array_equal(levels[1], downsample(levels[0], (1, 2, 2), "majority"))
    assert not np.array_equal(levels[0], 0)


def test_what_the_config_does_not_want_is_not_made(tmp_path: Path) -> None:
    off = {"smallest": 6, "raw": False, "segmentation": False}
    run = finish(make(tmp_path, pyramid=off))
    assert (arrays_of(run) / "fragments" / "s3").exists()
    assert (
        not (arrays_of(run) / "raw" / "s1").exists() and not (arrays_of(run) / "segmentation" / "0.60" / "s1").exists()
    )
    old = make(tmp_path / "old", storage={"format": 2})
    assert [stage.name for stage in known_stages(old) if "_s" in stage.name] == []


def run_on_raw_in_place(tmp_path: Path) -> tuple[Run, np.ndarray]:
    """Nothing is converted; the voxels of raw."""
    template = make_run(tmp_path / "template")
    raw = stored(template, "raw")
    write_zarr3(tmp_path / "raw.zarr", raw, {"voxel_size": [40, 8, 8], "offset": [0, 0, 0]})
    document = dump_config(template.config)
    document["run_directory"] = str(tmp_path / "run")
    document["pyramid"] = {"smallest": 6}
    document["volumes"] = {
        "sources": {"a": {"kind": "file", "path": str(tmp_path / "raw.zarr")}},
        "segment": {"source": "a", "begin": [1, 2, 3]},
    }
    run = Run(parse_config(document))
    import_data(run)
    return run, raw


def test_a_pilot_tries_the_levels_of_raw_in_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, _ = run_on_raw_in_place(tmp_path)
    with caplog.at_level(logging.INFO):
        log_pilots(run, raw_pyramid(run), 1, overwrite=False)
    assert "raw_s1: a block takes" in caplog.text


def test_raw_in_place_has_its_levels_in_the_run(tmp_path: Path) -> None:
    run, raw = run_on_raw_in_place(tmp_path)
    assert run_stages(run, raw_pyramid(run), False)
    assert not (arrays_of(run) / "raw" / "s0").exists() and not run.source("a").is_converted("raw")
    level = raw[1:, 2:, 3:]
    for number, step in enumerate([(1, 2, 2), (1, 2, 2), (2, 2, 2)], start=1):
        level = downsample(level, step, "mean")
        np.testing.assert_array_equal(stored(run, f"raw/s{number}"), level)
    image = yaozarrs.validate_zarr_store(str(arrays_of(run) / "raw")).ome_metadata()
    assert isinstance(image, v05.Image)
    assert [dataset.path for dataset in image.multiscales[0].datasets] == ["s1", "s2", "s3"]
    yaozarrs.validate_zarr_store(str(arrays_of(run)))


def test_a_plan_tells_the_voxels_of_the_level(finished: Run) -> None:
    text = "\n".join(plan_lines(RawPyramid(finished, 1), Progress.DONE))
    assert "12 shards, one per block" in text and "in chunks of 4×16×16 voxels" in text
    assert f"raw/s1: {disk_size(9 * 21 * 19)} before compression" in text


def test_jobs_give_the_same_levels_and_the_same_export(slurm: SlurmCluster, tmp_path: Path, finished: Run) -> None:
    cluster = {"executor": "slurm", "workers": 1, "slurm": {"poll": 0.5}}
    run = make(tmp_path / "run", cluster=cluster)
    assert run_stages(run, raw_pyramid(run), False)
    for ours, theirs in zip(levels_of(run, "raw"), levels_of(finished, "raw"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for source, to in ((run, "by_jobs"), (finished, "here")):
        options = ExportOptions("precomputed", str(tmp_path / to), 0.5, ("raw",))
        assert run_stages(source, export_stages(source, options), False)
    files = {path.name: path.read_bytes() for path in (tmp_path / "here" / "raw").rglob("*.shard")}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "by_jobs" / "raw").rglob("*.shard")}


def test_prediction_alone_makes_the_levels_of_raw(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert predict(run)
    assert (arrays_of(run) / "raw" / "s3").exists() and not (arrays_of(run) / "fragments").exists()
