"""Raw that begins between voxels: precomputed exports lie at the nearest whole ones, all of one export alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
from precomputed_reader import manifest_of, read_mesh
from voronoi_run import make_run, store_affinities, stored

from pipeline.api import agglomerate, export, extract_fragments, segment
from pipeline.volumes.placement import beside_whole_voxels, nearest_voxel

THRESHOLD = 0.45
OFFSET, SIZE = (50.0, 18.0, -6.0), np.array([40.0, 8.0, 8.0])
BEGIN = np.array([2, 4, 2])
"""The whole voxel that is nearest to the first one of the region, which lies at (90, 34, 18) nm."""


def test_voxels_meshes_and_skeletons_of_an_export_are_moved_alike(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path / "run", segment={"thresholds": [THRESHOLD]}, offset=OFFSET)
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    with caplog.at_level("INFO"):
        assert export(run, "precomputed", tmp_path / "out", meshes=True, skeletons=True, minimum_size=50)
    assert "what is at [90.0, 34.0, 18.0] nm is put [-10.0, -2.0, -2.0] nm beside" in caplog.text
    folder = tmp_path / "out" / "segmentation"
    volume = ts.open({"driver": "neuroglancer_precomputed", "kvstore": f"file://{folder}/"}, open=True).result()
    assert volume.domain.origin[:3] == tuple(BEGIN[::-1])
    segmentation = stored(run, f"segmentation/{THRESHOLD}")
    np.testing.assert_array_equal(volume[..., 0].read().result().transpose(), segmentation)
    ids, sizes = np.unique(segmentation[segmentation > 0], return_counts=True)
    number = int(ids[sizes.argmax()])
    voxels = np.argwhere(segmentation == number)
    corners = np.stack([voxels.min(axis=0), voxels.max(axis=0) + 1]) + BEGIN
    vertices = read_mesh(folder / "mesh", number)[0][:, ::-1]
    np.testing.assert_allclose([vertices.min(axis=0), vertices.max(axis=0)], corners * SIZE, atol=0.5)
    content = manifest_of(folder / "skeletons", number)
    assert content is not None
    count = int(np.frombuffer(content, "<u4", 1)[0])
    places = np.frombuffer(content, "<f4", 3 * count, 8).reshape(-1, 3)
    transform = np.reshape(json.loads((folder / "skeletons" / "info").read_text())["transform"], (3, 4))
    nodes = np.floor((places @ transform[:, :3].T + transform[:, 3])[:, ::-1] / SIZE).astype(int) - BEGIN
    assert (segmentation[tuple(nodes.T)] == number).all()
    swc = np.loadtxt(folder / "swc" / f"{number}.swc", ndmin=2)[:, 4:1:-1]
    exact = np.floor((swc - (90, 34, 18)) / SIZE).astype(int)
    assert (segmentation[tuple(exact.T)] == number).all()


def test_regions_of_one_volume_are_moved_alike() -> None:
    """Also by half a voxel, and where sizes are fractions that binary numbers do not have."""
    for offset, size in [(4.0, 8.0), (-4.0, 8.0), (1.62, 3.24), (2.62, 5.24)]:
        first = nearest_voxel([offset], [size])[0]
        for voxel in range(1, 2000, 7):
            assert nearest_voxel([offset + voxel * size], [size]) == (first + voxel,)
    assert beside_whole_voxels((3.24 * 7, 3.24 * 1001, 0.0), (3.24,) * 3) == (0, 0, 0)
