"""Skeletons of bodies that cross faces and corners of blocks: whole, inside, and as long as the bodies are."""

from __future__ import annotations

import itertools
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
from pipeline.stages.export.centre_lines import Skeleton, whole_skeleton
from pipeline.stages.export.skeletons import skeleton_pieces, swc, with_next_planes
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


def in_blocks(
    ids: np.ndarray, block: tuple[int, int, int], size: tuple[float, float, float] = SIZE
) -> Iterator[tuple[int, Skeleton]]:
    """Skeletons of all bodies, as blocks make them."""
    whole = Box.of_shape(ids.shape)
    pieces: dict[int, list[Skeleton]] = {}
    for box in whole.split(block):
        around, open_faces = with_next_planes(box, whole)
        for body, piece in skeleton_pieces(ids[around.slices], around.begin, open_faces, size).items():
            pieces.setdefault(body, []).append(piece)
    for body, parts in pieces.items():
        yield body, whole_skeleton(parts, size)


def trees(skeleton: Skeleton) -> int:
    """How many trees a forest has."""
    count, edges = len(skeleton.vertices), skeleton.edges.astype(int)
    matrix = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return int(connected_components(matrix, directed=False)[0])


def cable(skeleton: Skeleton, size: tuple[float, float, float] = SIZE) -> float:
    """Nanometres of all edges."""
    ends = skeleton.vertices[skeleton.edges.astype(int)] * size
    return float(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).sum())


def assert_is_a_tree_inside(skeleton: Skeleton, body: np.ndarray) -> None:
    """One tree, every vertex in a voxel of the body."""
    voxels = np.floor(skeleton.vertices + 0.5).astype(int)
    assert body[tuple(voxels.T)].all(), "every vertex lies in its body"
    assert trees(skeleton) == 1, "blocks do not tear it"
    assert len(skeleton.edges) == len(skeleton.vertices) - 1, "no circles"


RADIUS = 40.0
"""Nanometres, of tubes."""
LINES = {
    "straight, through corners of blocks": [(6, 6, 6), (58, 58, 58)],
    "straight, along edges of blocks": [(32, 32, 4), (32, 32, 60)],
    "straight, along faces of blocks": [(32, 20, 4), (32, 20, 60)],
    "straight, through edges of blocks": [(32, 6, 6), (32, 58, 58)],
    "straight, nearly along an edge": [(31, 31, 4), (34, 34, 60)],
    "straight, across": [(10, 30, 4), (50, 34, 60)],
    "bent in a face": [(32, 32 + 28 * np.cos(t), 32 + 28 * np.sin(t)) for t in np.linspace(0, np.pi, 40)],
    "a screw": [(5 + t, 32 + 20 * np.cos(t * np.pi / 27), 32 + 20 * np.sin(t * np.pi / 27)) for t in range(55)],
    "with corners": [(10, 10, 10), (32, 32, 32), (32, 56, 32), (56, 56, 32)],
}
"""Centre lines in voxels of a cube of 64, which blocks of 32 divide in the middle."""
BLOCKS = [(64, 64, 64), (32, 32, 32), (16, 16, 16), (31, 31, 31), (24, 24, 24), (20, 33, 64), (11, 64, 40)]


def tube(line: np.ndarray, shape: tuple[int, ...], size: tuple[float, float, float]) -> np.ndarray:
    """The voxels within `RADIUS` of a line, (z, y, x) uint64."""
    centres = np.stack(np.meshgrid(*(np.arange(extent) + 0.5 for extent in shape), indexing="ij"), axis=-1) * size
    distance = np.full(shape, np.inf)
    for begin, end in itertools.pairwise(line * size):
        along = end - begin
        share = np.clip((centres - begin) @ along / (along @ along), 0, 1)
        distance = np.minimum(distance, np.linalg.norm(centres - begin - share[..., None] * along, axis=-1))
    return (distance < RADIUS).astype(np.uint64)


@pytest.mark.parametrize("thickness", [1, 4])
@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_a_tube_is_as_long_in_any_blocks_as_its_centre_line(line: list[tuple[float, ...]], thickness: int) -> None:
    size = (10.0 * thickness, 10.0, 10.0)
    centre = np.array(line) / (thickness, 1, 1)
    body = tube(centre, (64 // thickness, 64, 64), size)
    expected = np.linalg.norm(np.diff(centre * size, axis=0), axis=1).sum() + 2 * RADIUS  # with its round ends
    for z, y, x in BLOCKS:
        block = (max(4, z // thickness), y, x)
        ((_, skeleton),) = in_blocks(body, block, size)
        assert_is_a_tree_inside(skeleton, body)
        assert cable(skeleton, size) == pytest.approx(expected, rel=0.1), block


@pytest.mark.parametrize("block", [(30, 120, 120), (11, 64, 40), (15, 60, 60), (10, 40, 40), (7, 33, 47)])
def test_a_branch_is_kept_in_any_blocks(block: tuple[int, int, int]) -> None:
    ids = tubes()
    length = {3: 100 * np.sqrt(2) * 10, 2**50: 30 * 40, 5: 700 + 2 * 50 * np.hypot(1, 0.7) * 10}
    found = dict(in_blocks(ids, block))
    assert sorted(found) == sorted(length)
    for body, skeleton in found.items():
        assert_is_a_tree_inside(skeleton, ids == body)
        assert cable(skeleton) == pytest.approx(length[body], rel=0.1)
        assert 20 < np.median(skeleton.radii) < 70
        degrees = np.bincount(skeleton.edges.ravel())
        assert sorted(degrees[degrees != 2]) == ([1, 1, 1, 3] if body == 5 else [1, 1]), "ends and branches"


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
        assert len(rows) == count
        assert set(map(tuple, rows[:, 2:5].astype("<f4").tolist())) == set(map(tuple, vertices.tolist()))
