"""Fragments of different classes are in no segment together, however the classes lie and however it ran."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_stores import STORES, Stores
from voronoi_run import assert_same, everything, make_run, store_affinities, stored

from pipeline.config import dump_config, parse_config
from pipeline.engine.audit.requeue import requeue
from pipeline.engine.blocks.grid import BlockGrid
from pipeline.engine.tracking.progress import Progress, progress_of
from pipeline.errors import UserError
from pipeline.rag import open_rag
from pipeline.run import Run
from pipeline.segmentation import FORBIDDEN, FragmentClasses
from pipeline.stages.agglomerate import agglomeration
from pipeline.stages.auditing import audit
from pipeline.stages.by_script import agglomerate, chained_stages, extract_fragments, run_chain, segment
from pipeline.stages.fragment_classes import FragmentClassesTask
from pipeline.stages.region_files import region_file
from pipeline.stages.segment import SegmentTask
from pipeline.volumes import create_volume

THRESHOLDS = [0.3, 0.6, 1.0]
ALONE_CLASS = 3
RAW = (9, 42, 38)
"""Voxels of raw, 40 x 8 x 8 nm; the region begins at voxel 1, 2, 3."""


def class_array() -> np.ndarray:
    """Four classes in slanted slabs, which cross cells and blocks; the last one is to stand alone."""
    z, y, x = np.indices(RAW)
    classes: np.ndarray = ((z * 2 + y + x) // 17 % 4).astype(np.uint8)
    return classes


def write_classes(path: Path, classes: np.ndarray, **place: Any) -> dict[str, Any]:
    """The config section of a zarr array of classes."""
    place = {"voxel_size": (40, 8, 8), "offset": (0, 0, 0), **place}
    volume = create_volume(path, "classes", classes.shape, str(classes.dtype), chunks=(4, 16, 16), **place)
    volume.write(volume.box, classes)
    return {"path": str(path), "dataset": "classes", "alone": [ALONE_CLASS]}


@pytest.fixture(scope="module")
def fragments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with fragments, to be copied, and `classes.zarr` beside it."""
    run = make_run(tmp_path_factory.mktemp("fragments") / "run")
    store_affinities(run)
    assert extract_fragments(run)
    write_classes(run.directory.parent / "classes.zarr", class_array())
    return run.directory


def with_classes(fragments: Path, directory: Path, section: dict[str, Any] | None = None, **sections: Any) -> Run:
    """A copy of the run, with the classes of the whole volume or those of a section."""
    shutil.copytree(fragments, directory, dirs_exist_ok=True)
    whole = {"path": str(fragments.parent / "classes.zarr"), "dataset": "classes", "alone": [ALONE_CLASS]}
    options = {"never_join": whole if section is None else section, **sections.pop("agglomerate", {})}
    return make_run(directory, agglomerate=options, segment={"thresholds": THRESHOLDS}, **sections)


def segmented(fragments: Path, directory: Path, section: dict[str, Any] | None = None, **sections: Any) -> Run:
    run = with_classes(fragments, directory, section, **sections)
    assert agglomerate(run) and segment(run)
    return run


def classes_of(run: Run) -> FragmentClasses:
    """Of all fragments, counted voxel by voxel from the whole arrays."""
    box = BlockGrid.of_run(run).region
    return FragmentClasses.of_voxels(stored(run, "fragments"), class_array()[box.slices], [ALONE_CLASS])


def assert_kept_apart(run: Run, classes: FragmentClasses) -> None:
    """No segment has two classes, at no threshold; of the class that stands alone, each has one fragment."""
    everyone = stored(run, "fragments")
    known = everyone > 0
    of_voxel = classes.of_fragments(everyone)
    for threshold in THRESHOLDS:
        segments = stored(run, f"segmentation/{threshold:.2f}")
        pairs = np.unique(np.stack([segments[known], of_voxel[known]]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1], f"at {threshold} a segment has two classes"
    alone = known & (of_voxel == of_voxel.max())
    assert (segments[alone] == everyone[alone]).all()
    assert alone.any()


@pytest.fixture(scope="module")
def reference(fragments: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What the whole graph in memory gives."""
    return everything(segmented(fragments, tmp_path_factory.mktemp("reference")))


def test_no_segment_has_two_classes_and_what_may_join_does(
    fragments: Path, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run = segmented(fragments, tmp_path)
    assert_kept_apart(run, classes_of(run))
    pairs = np.stack([reference["edges.u"], reference["edges.v"]], axis=1)
    np.testing.assert_array_equal(reference["edges.score"] == FORBIDDEN, classes_of(run).forbid(pairs))
    free = make_run(tmp_path, agglomerate={}, segment={"thresholds": THRESHOLDS})
    assert agglomerate(free, overwrite=True) and segment(free, overwrite=True)
    assert (stored(free, "segmentation/1.00") != reference["segmentation/1.00"]).any()


@pytest.mark.parametrize("region_size", [[4, 16, 16], [8, 16, 32]])
def test_regions_give_what_the_whole_graph_gives(
    region_size: list[int], fragments: Path, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run = segmented(fragments, tmp_path, agglomerate={"region_size": region_size})
    assert_same(everything(run), reference)


def test_workers_give_the_same(fragments: Path, reference: dict[str, np.ndarray], tmp_path: Path) -> None:
    regions = {"region_size": [8, 32, 32]}
    run = with_classes(fragments, tmp_path, agglomerate=regions, cluster={"executor": "local", "workers": 2})
    assert agglomerate(run) and agglomerate(run)
    assert segment(Run(parse_config(dump_config(run.config) | {"cluster": {"executor": "serial"}})))
    assert_same(everything(run), reference)


@pytest.mark.parametrize("kind", STORES[1:])
def test_every_store_gives_the_same(
    kind: str, stores: Stores, fragments: Path, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    assert_same(everything(segmented(fragments, tmp_path, rag={"url": stores.url(kind)})), reference)


def test_waterz_keeps_classes_apart(fragments: Path, tmp_path: Path) -> None:
    run = segmented(fragments, tmp_path, agglomerate={"method": "waterz"})
    assert_kept_apart(run, classes_of(run))
    with open_rag(run.config.rag, run.directory) as store:
        edges = store.read_edges()
    np.testing.assert_array_equal(edges.score == FORBIDDEN, classes_of(run).forbid(edges.pairs))
    free = make_run(tmp_path, agglomerate={"method": "waterz"}, segment={"thresholds": THRESHOLDS})
    assert agglomerate(free, overwrite=True)
    with open_rag(free.config.rag, free.directory) as store:
        assert (store.read_edges().score != FORBIDDEN).all()


def test_a_change_makes_stale_what_depends_on_it_and_nothing_else(fragments: Path, tmp_path: Path) -> None:
    section = write_classes(tmp_path / "classes.zarr", class_array())
    run = segmented(fragments, tmp_path / "run", section)
    before = {stage.name: Progress.DONE for stage in [*chained_stages(run), SegmentTask(run, 0.3)]}
    assert {stage.name: progress_of(stage) for stage in [*chained_stages(run), SegmentTask(run, 0.3)]} == before
    stale = {"fragment_classes", "agglomerate", "segment_0.30"}

    def assert_stale(changed: Run) -> None:
        found = {stage.name: progress_of(stage) for stage in [*chained_stages(changed), SegmentTask(changed, 0.3)]}
        assert {name for name, progress in found.items() if progress is not Progress.DONE} == stale

    assert_stale(with_classes(fragments, tmp_path / "run", {**section, "alone": []}))
    assert_stale(with_classes(fragments, tmp_path / "run", {**section, "together": [[0, 1]]}))
    shutil.copytree(tmp_path / "classes.zarr", tmp_path / "elsewhere.zarr")
    moved = with_classes(fragments, tmp_path / "run", {**section, "path": str(tmp_path / "elsewhere.zarr")})
    assert progress_of(agglomeration(moved)) is Progress.DONE, "where it lies is no part of what it is"
    write_classes(tmp_path / "classes.zarr", class_array()[::-1].copy())
    assert_stale(run)
    with pytest.raises(UserError, match="overwrite"):
        agglomerate(run)
    assert agglomerate(run, overwrite=True)


def test_temporary_affinities_give_the_same(tmp_path: Path) -> None:
    section = write_classes(tmp_path / "classes.zarr", class_array())
    graphs = []
    for keep in ("all", "until_used"):
        blocks = {"block_size": [4, 16, 16], "tile_size": [4, 16, 16], "keep_affinities": keep}
        run = make_run(tmp_path / keep, predict=blocks, agglomerate={"never_join": section, "method": "waterz"})
        assert run_chain(run) and segment(run)
        graphs.append({name: array for name, array in everything(run).items() if name != "affinities"})
    assert_same(*graphs)
    assert (graphs[0]["edges.score"] == FORBIDDEN).any()


def test_lost_classes_are_found_by_the_audit_and_made_again(fragments: Path, tmp_path: Path) -> None:
    run = segmented(fragments, tmp_path, agglomerate={"region_size": [8, 32, 32]})
    sound = everything(run)
    assert all(found.sound for found in audit(run))
    task = FragmentClassesTask(run)
    region_file(task.files, 3).unlink()
    damaged = region_file(task.files, 5)
    damaged.write_bytes(damaged.read_bytes()[:-6] + b"\1\2\3\4\5\6")
    findings = audit(run)
    assert [found.stage.name for found in findings if not found.sound] == ["fragment_classes"]
    assert np.flatnonzero(findings[[f.stage.name for f in findings].index("fragment_classes")].blocks()).tolist() == [
        3,
        5,
    ]
    requeue(findings)
    assert agglomerate(run) and segment(run)
    assert all(found.sound for found in audit(run))
    assert_same(everything(run), sound)
