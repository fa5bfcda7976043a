"""Linkage in windows, from the disk, gives what linkage in memory gives, however little memory there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import disk_arrays
from pipeline.errors import UserError
from pipeline.segmentation import merge_scores
from pipeline.segmentation.cluster_edges import UNIT, ClusterEdges
from pipeline.segmentation.regional_linkage import LinkedRegion, across_inner_borders, link_region
from pipeline.stages.windowed_linkage import BYTES_PER_CLUSTER, BYTES_PER_EDGE, link_region_on_disk


def random_graph(rng: np.random.Generator, nodes: int, levels: int) -> ClusterEdges:
    pairs = np.unique(np.sort(rng.integers(1, nodes, (4 * nodes, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    counts = rng.integers(1, 4, len(pairs))
    sums = counts * rng.integers(0, levels + 1, len(pairs)) * (2**26 // levels)
    return ClusterEdges.of_fragments(pairs[:, 0], pairs[:, 1], sums * UNIT, counts)


def on_disk(
    edges: ClusterEdges, seen: ClusterEdges, is_inside: np.ndarray, maximum: float, room: int, folder: Path
) -> LinkedRegion:
    nodes = len(np.unique(np.concatenate([edges.u, edges.v, seen.u, seen.v])))
    memory = BYTES_PER_CLUSTER * nodes + BYTES_PER_EDGE * (room + 0.5)
    return link_region_on_disk(edges, lambda ids: ~is_inside[ids.astype(int)], seen, maximum, memory, folder)


@pytest.mark.parametrize("room", [40, 150, 10000])
@pytest.mark.parametrize("maximum", [1.0, 0.5])
def test_two_regions_and_what_they_leave_in_windows_give_the_scores_of_the_whole_graph(
    room: int, maximum: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_arrays, "CHUNK", 17)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        edges = random_graph(rng, 60, 2**26)
        region = rng.integers(0, 2, 61)
        of_u, of_v = region[edges.u.astype(int)], region[edges.v.astype(int)]
        parts: list[tuple[np.ndarray, LinkedRegion]] = []
        for name in (0, 1):
            rows, seen = np.flatnonzero(of_v == name), edges.select((of_u == name) & (of_v != name))
            linked = on_disk(edges.select(rows), seen, region == name, maximum, room, tmp_path)
            expected = link_region(edges.select(rows), of_u[rows] != name, seen, maximum)
            assert_alike(linked, expected, region != name)
            parts.append((rows, linked))
        left = ClusterEdges.concatenate([linked.edges for _, linked in parts])
        seen = ClusterEdges.concatenate([linked.seen for _, linked in parts])
        left, seen = across_inner_borders(left, seen, np.ones(len(seen), bool))
        top = on_disk(left, seen, np.ones(61, bool), maximum, room, tmp_path)
        assert len(top.edges) == 0
        scores, begin = np.zeros(len(edges)), 0
        for rows, linked in parts:
            scores[rows] = linked.scores(top.score[begin : begin + len(linked.edges)])
            begin += len(linked.edges)
        whole = merge_scores(np.stack([edges.u, edges.v], axis=1), edges.sums * UNIT / edges.counts, edges.counts)
        wanted = whole <= maximum
        assert np.array_equal(scores[wanted], whole[wanted])
        assert (scores[~wanted] > maximum).all()


def assert_alike(linked: LinkedRegion, expected: LinkedRegion, outside: np.ndarray) -> None:
    """The same, but for the order of the edges that go up, and of the ends of those inside."""
    assert np.array_equal(linked.score, expected.score, equal_nan=True)
    assert np.array_equal(linked.target >= 0, expected.target >= 0)
    assert len(linked.edges) == len(expected.edges)
    up = expected.target[expected.target >= 0]
    edges, other = linked.edges.select(linked.target[expected.target >= 0]), expected.edges.select(up)
    assert all(map(np.array_equal, edges.columns()[2:], other.columns()[2:]))
    ends, other_ends = (np.sort(np.stack([table.u, table.v]), axis=0) for table in (edges, other))
    assert np.array_equal(ends, other_ends)
    assert np.array_equal(outside[edges.u.astype(int)], outside[other.u.astype(int)])
    assert all(map(np.array_equal, linked.seen.columns(), expected.seen.columns()))


def test_equal_scores_are_linked_as_in_memory_or_refused_with_the_memory_they_take(tmp_path: Path) -> None:
    edges = random_graph(np.random.default_rng(1), 40, 2)
    no_edges, inside = ClusterEdges.empty(), np.ones(41, bool)
    expected = link_region(edges, np.zeros(len(edges), bool), no_edges)
    assert np.array_equal(on_disk(edges, no_edges, inside, 1, len(edges) * 2, tmp_path).score, expected.score)
    with pytest.raises(UserError, match="edges of about the same score hang together"):
        on_disk(edges, no_edges, inside, 1, 8, tmp_path)


def test_clusters_that_take_more_than_the_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="clusters take"):
        on_disk(random_graph(np.random.default_rng(1), 40, 2), ClusterEdges.empty(), np.ones(41, bool), 1, 0, tmp_path)


def test_clusters_are_found_without_sorting_all_of_them_again_for_every_portion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, sorted_rows = 4000, list[int]()
    ids = np.arange(1, number + 2)
    edges = ClusterEdges.of_fragments(ids[:-1], ids[1:], np.full(number, 0.5), np.ones(number))
    for name in ("unique", "union1d"):
        whole = getattr(np, name)

        def counted(first: np.ndarray, *rest: Any, whole: Any = whole, **options: Any) -> Any:
            sorted_rows.append(np.size(first))
            return whole(first, *rest, **options)

        monkeypatch.setattr(np, name, counted)
    monkeypatch.setattr(disk_arrays, "CHUNK", 16)
    link_region_on_disk(edges, lambda found: np.zeros(len(found), bool), ClusterEdges.empty(), 1.0, 1e9, tmp_path)
    assert sum(sorted_rows) < 20 * number
