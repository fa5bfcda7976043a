"""Lookup tables and tables of segments that are made in portions are those of the whole graph in memory."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from voronoi_run import make_run, store_affinities

from pipeline import disk_arrays
from pipeline.errors import UserError
from pipeline.rag import open_rag
from pipeline.segmentation import SmallSegments, connected_components, drop_small
from pipeline.segmentation.union_find import join, settle
from pipeline.small_files import read_npy
from pipeline.stages.agglomerate import agglomeration
from pipeline.stages.by_script import run_chain
from pipeline.stages.export.segments import write_segment_table
from pipeline.stages.graph_rows import read_graph
from pipeline.stages.lookup_tables import JoinLimits, join_fragments, sum_segments, write_lookup_table
from pipeline.stages.region_graph import RagTask

MINIMUM_SIZE = 40


@pytest.mark.parametrize("small_segments", [None, (3000, 0.8)])
def test_tables_made_in_portions_are_those_of_the_whole_graph(
    small_segments: tuple[int, float] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    store_affinities(run)
    assert run_chain(run)
    monkeypatch.setattr(disk_arrays, "CHUNK", 7)
    with open_rag(run.config.rag, run.directory) as store:
        nodes, edges = read_graph(store, RagTask(run), agglomeration(run))
        threshold = float(edges.score[edges.score <= 0.5].max())  # that of an edge, which is to join
        limits = JoinLimits(threshold, small_segments)
        joined = join_fragments(store, RagTask(run), agglomeration(run), limits, tmp_path / "luts")
        sums = sum_segments(joined, MINIMUM_SIZE, tmp_path / "luts")
        write_lookup_table(joined, sums, tmp_path / "lut.npy")
        write_segment_table(store, joined, sums, tmp_path / "segments.npy")
    small = SmallSegments.of(small_segments, nodes.id, nodes.size, edges.mean_affinity)
    every = connected_components(nodes.id, edges.pairs, edges.score, threshold, small)
    lut = drop_small(every, nodes.id, nodes.size, MINIMUM_SIZE)
    assert np.array_equal(np.load(tmp_path / "lut.npy"), lut)
    assert 0 < (lut[:, 1] == 0).sum() < len(lut)

    table = read_npy(tmp_path / "segments.npy")
    assert table["id"].tolist() == np.unique(lut[lut[:, 1] > 0, 1]).tolist()
    for row in table:
        found = nodes.select(lut[:, 1] == row["id"])
        assert (row["size"], row["fragments"]) == (found.size.sum(), len(found))
        np.testing.assert_allclose(row["centre"], np.average(found.centre, axis=0, weights=found.size))
        assert np.array_equal(row["begin"], found.begin.min(axis=0))
        assert np.array_equal(row["end"], found.end.max(axis=0))


@pytest.mark.parametrize("more", [1, -1])
@pytest.mark.parametrize("small_segments", [None, (3000, 0.8)])
def test_a_graph_of_more_or_fewer_edges_than_it_says_is_refused(
    tmp_path: Path, more: int, small_segments: tuple[int, float] | None
) -> None:
    run = make_run(tmp_path)
    store_affinities(run)
    assert run_chain(run)
    with sqlite3.connect(run.directory / "rag.sqlite") as connection:
        connection.execute(f"UPDATE blocks SET edges = edges + {more} WHERE edges > 0")
    with (
        open_rag(run.config.rag, run.directory) as store,
        pytest.raises(UserError, match="not as many edges as it says"),
    ):
        join_fragments(store, RagTask(run), agglomeration(run), JoinLimits(0.5, small_segments), tmp_path / "luts")


def test_sets_that_are_joined_in_any_order_are_connected_components() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 500, (450, 2))
    parent = np.arange(500)
    for part in np.array_split(rng.permutation(pairs), 9):
        join(parent, part[:, 0], part[:, 1])
    settle(parent, 0, 200)
    settle(parent, 200, 500)
    expected = connected_components(np.arange(500), pairs, np.zeros(len(pairs)), 0)
    assert np.array_equal(parent, expected[:, 1])
