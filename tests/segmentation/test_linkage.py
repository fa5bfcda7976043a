from __future__ import annotations

import numpy as np
import pytest

from pipeline.segmentation import agglomerate_global, connected_components, merge_scores


def random_graph(nodes: int = 40, edges: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pairs = np.unique(np.sort(rng.integers(1, nodes, (edges, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]].astype(np.uint64)
    return pairs, rng.random(len(pairs)), rng.integers(1, 50, len(pairs))


def brute_force(edges: np.ndarray, mean: np.ndarray, count: np.ndarray, threshold: float) -> set[frozenset[int]]:
    """Average linkage as its definition says: find the best pair of clusters, merge it, start again."""
    clusters = [frozenset([int(i)]) for i in np.unique(edges)]
    while True:
        best, pair = threshold, None
        for i, first in enumerate(clusters):
            for second in clusters[i + 1 :]:
                across = [
                    k
                    for k, (u, v) in enumerate(edges.tolist())
                    if (u in first and v in second) or (v in first and u in second)
                ]
                if across and 1 - np.average(mean[across], weights=count[across]) <= best:
                    best, pair = 1 - np.average(mean[across], weights=count[across]), (first, second)
        if pair is None:
            return set(clusters)
        clusters = [c for c in clusters if c not in pair] + [pair[0] | pair[1]]


def partition(lut: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(lut[lut[:, 1] == segment, 0].tolist()) for segment in np.unique(lut[:, 1])}


@pytest.mark.parametrize("seed", range(4))
def test_segments_equal_brute_force_average_linkage(seed: int) -> None:
    edges, mean, count = random_graph(18, 34, seed)
    thresholds = [0.1, 0.35, 0.5, 0.8]
    luts = agglomerate_global(edges, mean, count, thresholds)
    for threshold in thresholds:
        assert partition(luts[threshold]) == brute_force(edges, mean, count, threshold)


def test_scores_worked_by_hand() -> None:
    # 1-2 merge first (0.1). Then 3 touches {1, 2} with (0.2*1 + 0.6*3) / 4 = 0.5 mean affinity.
    edges = np.array([[1, 2], [1, 3], [2, 3]], np.uint64)
    scores = merge_scores(edges, np.array([0.9, 0.2, 0.6]), np.array([5, 1, 3]))
    assert scores.tolist() == [0.1, 0.5, 0.5]


def test_a_threshold_includes_scores_that_equal_it() -> None:
    edges = np.array([[1, 2], [1, 3], [2, 3], [3, 4]], np.uint64)
    luts = agglomerate_global(edges, np.full(4, np.float32(0.7)), np.array([3, 7, 11, 1]), [0.29, 0.3])
    assert len(np.unique(luts[0.29][:, 1])) == 4
    assert np.unique(luts[0.3][:, 1]).tolist() == [1]


def test_the_result_does_not_depend_on_order_or_direction_of_edges_even_with_ties() -> None:
    edges, mean, count = random_graph(200, 900)
    mean = np.round(mean, 1)  # many ties
    scores = merge_scores(edges, mean, count)
    rng = np.random.default_rng(1)
    for _ in range(3):
        order = rng.permutation(len(edges))
        flipped = np.where(rng.random((len(edges), 1)) < 0.5, edges[:, ::-1], edges)
        assert np.array_equal(merge_scores(flipped[order], mean[order], count[order]), scores[order])


def test_segments_carry_their_smallest_fragment_id() -> None:
    edges, mean, count = random_graph()
    lut = agglomerate_global(edges, mean, count, [0.5])[0.5]
    assert lut.dtype == np.uint64
    assert (np.diff(lut[:, 0].astype(np.int64)) > 0).all()
    assert all(min(members) in lut[lut[:, 0] == min(members), 1] for members in partition(lut))
    assert (lut[:, 1] <= lut[:, 0]).all()


def test_components_without_a_path_are_never_merged() -> None:
    edges = np.array([[1, 2], [5, 6], [8, 9]], np.uint64)
    lut = agglomerate_global(edges, np.zeros(3), np.ones(3), [1.0])[1.0]
    assert lut.tolist() == [[1, 1], [2, 1], [5, 5], [6, 5], [8, 8], [9, 8]]


def test_fragments_without_edges_keep_their_id() -> None:
    edges = np.array([[4, 9]], np.uint64)
    lut = agglomerate_global(edges, np.ones(1), np.ones(1), [0.5], nodes=np.array([9, 2, 4]))[0.5]
    assert lut.tolist() == [[2, 2], [4, 4], [9, 4]]


def test_a_graph_without_edges() -> None:
    none = np.zeros((0, 2), np.uint64)
    assert agglomerate_global(none, np.zeros(0), np.zeros(0), [0.5])[0.5].shape == (0, 2)
    assert agglomerate_global(none, np.zeros(0), np.zeros(0), [0.5], nodes=np.array([3]))[0.5].tolist() == [[3, 3]]


def test_segments_only_grow_with_the_threshold() -> None:
    edges, mean, count = random_graph(200, 600)
    luts = agglomerate_global(edges, mean, count, [0.2, 0.4, 0.6, 0.8])
    for fine, coarse in zip([0.2, 0.4, 0.6], [0.4, 0.6, 0.8], strict=True):
        pairs = np.unique(np.stack([luts[fine][:, 1], luts[coarse][:, 1]]), axis=1)
        assert len(pairs[0]) == len(np.unique(pairs[0]))


@pytest.mark.parametrize("edges", [[[1, 2], [2, 1]], [[3, 3], [1, 2]]])
def test_repeated_edges_and_loops_are_refused(edges: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="edge"):
        merge_scores(np.array(edges, np.uint64), np.ones(2), np.ones(2))


def test_arrays_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 means"):
        merge_scores(np.array([[1, 2]], np.uint64), np.ones(2), np.ones(1))


def test_edges_without_a_score_never_merge() -> None:
    lut = connected_components(np.array([1, 2, 3]), np.array([[1, 2], [2, 3]]), np.array([np.nan, 0.2]), 1.0)
    assert lut.tolist() == [[1, 1], [2, 2], [3, 2]]
