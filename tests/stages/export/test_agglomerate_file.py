"""Agglomerate files that are written in portions are those of the whole graph in memory, and hold a portion of it."""

from __future__ import annotations

import resource
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from voronoi_run import make_run, store_affinities

from pipeline import disk_arrays
from pipeline.engine.chain import run_stages
from pipeline.errors import UserError
from pipeline.rag import EdgeTable, NodeTable, open_rag
from pipeline.run import Run
from pipeline.segmentation import SmallSegments, joining_edges
from pipeline.stages.agglomerate import agglomeration
from pipeline.stages.by_script import run_chain
from pipeline.stages.export.agglomerate_file import JoiningEdges, write_agglomerate_file
from pipeline.stages.export.segments import segments_of
from pipeline.stages.export.webknossos import AgglomerateStep
from pipeline.stages.graph_rows import read_graph
from pipeline.stages.region_graph import RagTask

THRESHOLD, LENIENT = 0.45, 0.8


def arrays_in_memory(
    ids: np.ndarray, lut: np.ndarray, positions: np.ndarray, pairs: np.ndarray, affinities: np.ndarray
) -> dict[str, np.ndarray]:
    """The arrays of an agglomerate file from fragments `ids`, and edges `pairs` (E, 2) of ids that join them."""
    segments = np.unique(lut[:, 1])
    segments = segments[segments > 0]
    agglomerate = np.where(lut[:, 1] > 0, np.searchsorted(segments, lut[:, 1]) + 1, 0)
    members = np.argsort(agglomerate, kind="stable")
    members = members[agglomerate[members] > 0]
    starts = np.searchsorted(agglomerate[members], np.arange(len(segments) + 2))
    place = np.zeros(len(lut), np.int64)
    place[members] = np.arange(len(members)) - starts[agglomerate[members]]
    u, v = np.searchsorted(ids, pairs).reshape(-1, 2).T
    of_edge = agglomerate[u]
    order = np.lexsort((place[v], place[u], of_edge))
    order = order[of_edge[order] > 0]
    return {
        "segment_to_agglomerate": np.concatenate([[0], agglomerate]).astype(np.uint64),
        "agglomerate_to_segments_offsets": starts.astype(np.uint64),
        "agglomerate_to_segments": (members + 1).astype(np.uint64),
        "agglomerate_to_positions": positions[members].astype(np.int64),
        "agglomerate_to_edges_offsets": np.searchsorted(of_edge[order], np.arange(len(segments) + 2)).astype(np.uint64),
        "agglomerate_to_edges": np.stack([place[u], place[v]], axis=1)[order].astype(np.uint64),
        "agglomerate_to_affinities": affinities[order].astype(np.float32),
        "fragment_ids": np.concatenate([[0], lut[:, 0]]).astype(np.uint64),
        "segment_ids": np.concatenate([[0], segments]).astype(np.uint64),
    }


def assert_written(path: Path, expected: dict[str, np.ndarray]) -> None:
    with h5py.File(path) as file:
        assert set(file) == set(expected)
        for name, array in expected.items():
            assert file[name].dtype == array.dtype and np.array_equal(file[name][:], array), name


def random_agglomerates(fragments: int, segments: int, edges: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A lookup table, a tenth of whose segments are none, and edges (E, 2) of rows inside segments, in no order."""
    rng = np.random.default_rng(seed)
    segment = rng.integers(0, segments, fragments)
    ids = np.sort(rng.choice(10 * fragments, fragments, replace=False)).astype(np.uint64) + np.uint64(1)
    first = np.full(segments, fragments)
    np.minimum.at(first, segment, np.arange(fragments))
    lut = np.stack([ids, np.where(segment % 10 == 3, np.uint64(0), ids[first[segment]])], axis=1)
    u = rng.integers(0, fragments, 2 * edges)
    by_segment = np.argsort(segment, kind="stable")
    begin = np.searchsorted(segment[by_segment], segment[u])
    count = np.bincount(segment, minlength=segments)[segment[u]]
    v = by_segment[begin + (rng.random(len(u)) * count).astype(np.int64)]
    pairs = np.unique(np.sort(np.stack([u, v], axis=1)[u != v], axis=1), axis=0)
    return lut, rng.permutation(pairs)[:edges]


@pytest.mark.parametrize(
    ("fragments", "segments", "edges"), [(0, 1, 0), (1, 1, 0), (60, 60, 0), (90, 1, 300), (300, 40, 700)]
)
def test_portions_give_the_arrays_of_the_whole_graph(
    fragments: int, segments: int, edges: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_arrays, "CHUNK", 7)
    lut, pairs = random_agglomerates(fragments, segments, edges, seed=fragments)
    rng = np.random.default_rng(1)
    positions, affinities = rng.integers(0, 99, (fragments, 3)), rng.random(len(pairs))
    joining = JoiningEdges(tmp_path, len(pairs))
    for part in np.array_split(np.arange(len(pairs)), 5):
        joining.add(pairs[part, 0], pairs[part, 1], affinities[part])
    write_agglomerate_file(tmp_path / "file.hdf5", lut, np.array_split(positions, 4), joining)
    assert_written(tmp_path / "file.hdf5", arrays_in_memory(lut[:, 0], lut, positions, lut[:, 0][pairs], affinities))


def test_no_more_than_a_portion_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_arrays, "CHUNK", 1000)
    fragments = 40_000
    table, pairs = random_agglomerates(fragments, 4000, 60_000, seed=0)
    np.save(tmp_path / "lut.npy", table)
    lut = np.load(tmp_path / "lut.npy", mmap_mode="r")
    joining = JoiningEdges(tmp_path, len(pairs))
    for part in np.array_split(pairs, 60):
        joining.add(part[:, 0], part[:, 1], np.zeros(len(part)))
    positions = (np.zeros((1000, 3), np.int64) for _ in range(fragments // 1000))
    tracemalloc.start()
    write_agglomerate_file(tmp_path / "file.hdf5", lut, positions, joining)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < fragments * 8, "not even one column of the fragments"


def test_a_file_that_cannot_grow_is_one_line(tmp_path: Path) -> None:
    """h5py notices it as late as when it closes the file."""
    lut, pairs = random_agglomerates(20_000, 2000, 0, seed=0)
    joining = JoiningEdges(tmp_path, len(pairs))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(lut) * 25, limits[1]))  # more than each array on the disk takes
    try:
        with pytest.raises(UserError, match=r"file\.hdf5: cannot be written: File too large"):
            write_agglomerate_file(tmp_path / "file.hdf5", lut, [np.zeros((len(lut), 3), np.int64)], joining)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def finished(directory: Path, small_segments: dict[str, float] | None) -> Run:
    run = make_run(directory, segment={"thresholds": [THRESHOLD], "minimum_size": 40, "small_segments": small_segments})
    store_affinities(run)
    assert run_chain(run)
    return run


def graph_in_memory(run: Run) -> tuple[NodeTable, EdgeTable]:
    with open_rag(run.config.rag, run.directory) as store:
        return read_graph(store, RagTask(run), agglomeration(run))


@pytest.mark.parametrize("small_segments", [None, {"below": 3000, "threshold": LENIENT}])
def test_the_file_of_a_run_has_all_edges_that_joined_its_segments(
    small_segments: dict[str, float] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, to = finished(tmp_path / "run", small_segments), tmp_path / "export"
    step = AgglomerateStep(run, str(to), THRESHOLD)
    monkeypatch.setattr(disk_arrays, "CHUNK", 50)
    assert run_stages(run, [segments_of(run, THRESHOLD), step], overwrite=False)
    nodes, edges = graph_in_memory(run)
    small = SmallSegments.of(run.config.small_segments, nodes.id, nodes.size, edges.mean_affinity)
    joins = joining_edges(nodes.id, np.searchsorted(nodes.id, edges.pairs), edges.score, THRESHOLD, small)
    lut = np.load(segments_of(run, THRESHOLD).lut_path)
    assert 0 < (lut[:, 1] == 0).sum() < len(lut) and joins.any()
    voxels = np.floor((nodes.centre - np.array(step.grid.offset)) / np.array(step.grid.voxel_size))[:, ::-1]
    inside = edges.select(joins)
    expected = arrays_in_memory(nodes.id, lut, voxels, inside.pairs, inside.mean_affinity)
    path = to.joinpath(*step.sign)
    assert_written(path, expected)
    assert step.damage() == "" and [*run.luts.glob(".*")] == []

    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    assert "is damaged" in step.damage()
    path.unlink()
    assert "is missing" in step.damage()
