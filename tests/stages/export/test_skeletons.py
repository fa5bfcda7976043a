"""Skeletons of bodies that cross faces and corners of blocks: whole, inside, and as long as the bodies are."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from precomputed_reader import manifest_of
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from voronoi_run import make_run, store_affinities, stored

from pipeline.api import agglomerate, extract_fragments, segment
from pipeline.engine.chain import run_stages
from pipeline.run import Run
from pipeline.stages.export.skeletons import Skeleton, skeleton_pieces, swc, whole_skeleton, with_next_planes
from pipeline.stages.export.targets import ExportOptions, export_stages
from pipeline.volumes import Box

SIZE = (40.0, 10.0, 10.0)
THRESHOLD = 0.45


def tubes() -> np.ndarray:
    """A straight tube along the diagonal of y and x (3), one along z (2**50), and a Y (5)."""
    z, y, x = np.meshgrid(*(np.arange(extent) + 0.5 for extent in (30, 120, 120)), indexing="ij")
    ids = np.zeros(z.shape, np.uint64)
    ids[(np.hypot((y - x) / np.sqrt(2), (z - 8) * 4) < 5) & (abs(x - 60) < 50)] = 3
    ids[np.hypot(y - 100, x - 20) < 6] = 2**50
    ids[(np.hypot(y - 40, (z - 22) * 4) < 5) & (x < 70)] = 5
    for side in (-1, 1):
        ids[(np.hypot(y - 40 - side * (x - 65) * 0.7, (z - 22) * 4) < 5) & (x >= 65) & (x < 115)] = 5
    return ids


def in_blocks(ids: np.ndarray, block: tuple[int, int, int]) -> Iterator[tuple[int, Skeleton]]:
    """Skeletons of all bodies, as blocks make them."""
    whole = Box.of_shape(ids.shape)
    pieces: dict[int, list[Skeleton]] = {}
    for box in whole.split(block):
        around, open_faces = with_next_planes(box, whole)
        for body, piece in skeleton_pieces(ids[around.slices], around.begin, open_faces, SIZE).items():
            pieces.setdefault(body, []).append(piece)
    for body, parts in pieces.items():
        yield body, whole_skeleton(parts, SIZE)


def trees(skeleton: Skeleton) -> int:
    """How many trees a forest has."""
    count, edges = len(skeleton.vertices), skeleton.edges.astype(int)
    matrix = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return int(connected_components(matrix, directed=False)[0])


def cable(skeleton: Skeleton) -> float:
    """Nanometres of all edges."""
    ends = skeleton.vertices[skeleton.edges.astype(int)] * SIZE
    return float(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).sum())


@pytest.mark.parametrize("block", [(30, 120, 120), (11, 64, 40), (15, 60, 60)])
def test_skeletons_are_whole_inside_and_as_long_as_the_bodies(block: tuple[int, int, int]) -> None:
    ids = tubes()
    length = {3: 100 * np.sqrt(2) * 10, 2**50: 30 * 40, 5: 700 + 2 * 50 * np.hypot(1, 0.7) * 10}
    found = dict(in_blocks(ids, block))
    assert sorted(found) == sorted(length)
    for body, skeleton in found.items():
        assert (ids[tuple(skeleton.vertices.T)] == body).all(), "every vertex lies in its body"
        assert trees(skeleton) == 1, "blocks do not tear it"
        assert len(skeleton.edges) == len(skeleton.vertices) - 1, "no circles"
        # where a block's face runs along a body or four blocks meet in it, spurs remain or an end is lost
        assert cable(skeleton) == pytest.approx(length[body], rel=0.2)
        assert 20 < np.median(skeleton.radii) < 70


def test_swc_says_the_same_as_the_edges() -> None:
    vertices = np.array([[0, 0, 0], [0, 0, 5], [0, 4, 5], [3, 0, 5], [9, 9, 9]], float)
    skeleton = Skeleton(vertices, np.array([[1, 0], [2, 1], [1, 3]]), np.array([1, 2, 3, 4, 5], np.float32))
    rows = [line.split() for line in swc(skeleton, "segment 7").splitlines() if not line.startswith("#")]
    position = {row[0]: tuple(map(float, row[2:5])) for row in rows}
    edges = {frozenset((position[row[0]], position[row[6]])) for row in rows if row[6] != "-1"}
    assert edges == {frozenset((tuple(vertices[a][::-1]), tuple(vertices[b][::-1]))) for a, b in skeleton.edges}
    assert [row[6] for row in rows].count("-1") == 2, "two trees"
    assert all(int(row[6]) < int(row[0]) for row in rows), "parents come first"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    run = make_run(tmp_path_factory.mktemp("run"), segment={"thresholds": [THRESHOLD]})
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    to = tmp_path_factory.mktemp("to")
    options = ExportOptions("precomputed", str(to), THRESHOLD, ("segmentation",), skeletons=True, minimum_size=50)
    assert run_stages(run, export_stages(run, options), False)
    return run, to / "segmentation"


def test_every_segment_above_a_size_has_a_skeleton_inside(exported: tuple[Run, Path]) -> None:
    run, folder = exported
    assert json.loads((folder / "info").read_text())["skeletons"] == "skeletons"
    volume = stored(run, f"segmentation/{THRESHOLD}")
    ids, sizes = np.unique(volume[volume > 0], return_counts=True)
    for number, size in zip(ids.tolist(), sizes.tolist(), strict=True):
        content = manifest_of(folder / "skeletons", number)
        assert (content is None) == (size < 50) == (not (folder / "swc" / f"{number}.swc").exists())
        if content is None:
            continue
        count, edges = struct.unpack_from("<II", content)
        assert len(content) == 8 + 12 * count + 8 * edges + 4 * count
        vertices = np.frombuffer(content, "<f4", 3 * count, 8).reshape(-1, 3)
        voxels = np.floor((vertices[:, ::-1] - (40, 16, 24)) / (40, 8, 8)).astype(int)
        assert (volume[tuple(voxels.T)] == number).all()
        rows = np.loadtxt(folder / "swc" / f"{number}.swc", ndmin=2)
        assert len(rows) == count and set(map(tuple, rows[:, 2:5])) == set(map(tuple, vertices.astype(float)))
