"""Segments are looked up where they are needed: what a worker holds of them does not grow with the volume."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from voronoi_run import make_run, store_affinities, stored

from pipeline.api import agglomerate, extract_fragments, segment
from pipeline.engine.chain import run_stages
from pipeline.run import Run
from pipeline.small_files import write_npy
from pipeline.stages.export.meshes import MeshShards
from pipeline.stages.export.segments import SEGMENT, SegmentedVolume, segments_of
from pipeline.stages.export.supervoxels import SupervoxelVolume
from pipeline.stages.export.targets import ExportOptions, export_stages

THRESHOLD, SMALLEST = 0.45, 50
MANY = 400_000
"""Segments elsewhere in the volume."""


@pytest.fixture(scope="module")
def among_many(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with meshes in `out` beside it, whose table of segments has many others, half of them small."""
    folder = tmp_path_factory.mktemp("many")
    run = make_run(folder / "run", segment={"thresholds": [THRESHOLD]})
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    options = ExportOptions("precomputed", str(folder / "out"), THRESHOLD, ("segmentation",), meshes=True)
    assert run_stages(run, export_stages(run, options), False)
    own = np.array(segments_of(run, THRESHOLD).read())
    others = np.zeros(MANY, SEGMENT)
    others["id"] = 2**40 + np.arange(MANY)
    others["size"] = np.where(np.arange(MANY) % 2, SMALLEST - 1, 10**6)
    write_npy(segments_of(run, THRESHOLD).table_path, np.concatenate([own, others]))
    return run


def test_small_segments_are_left_out_with_a_look_at_those_of_the_block(among_many: Run) -> None:
    step = segments_of(among_many, THRESHOLD)
    expected = stored(among_many, f"segmentation/{THRESHOLD}")
    ids, sizes = np.unique(expected, return_counts=True)
    assert (sizes < SMALLEST).any()
    expected[np.isin(expected, ids[sizes < SMALLEST])] = 0
    SegmentedVolume(step, SMALLEST).read(step.grid.box)  # what is loaded once is no matter here
    tracemalloc.start()
    try:
        volume = SegmentedVolume(step, SMALLEST)
        found = volume.read(volume.grid.box)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found, expected)
    assert peak < 2 * MANY, "less than two bytes per segment elsewhere"


def test_a_worker_that_packs_meshes_holds_a_number_per_segment(among_many: Run) -> None:
    task = MeshShards(among_many, str(among_many.directory.parent / "out"), THRESHOLD, SMALLEST)
    tracemalloc.start()
    try:
        with task.process():
            held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 8 * MANY, "8 bytes for each of the large ones, which are half of them"


def test_a_block_is_numbered_for_pychunkedgraph_with_what_its_voxels_take(tmp_path: Path) -> None:
    extent = (8, 40, 35)
    run = make_run(tmp_path, predict={"block_size": list(extent), "tile_size": list(extent)})
    store_affinities(run)
    assert extract_fragments(run)
    volume = SupervoxelVolume(run)
    volume.read(volume.grid.box)
    tracemalloc.start()
    try:
        volume.read(volume.grid.box)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 55 * volume.grid.box.size, "bytes: 33 per voxel, and a little"
