"""Small segments join at a more lenient threshold: against a slow rule, and whatever is raised only joins more."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.segmentation import FORBIDDEN, SmallSegments, connected_components

LEVELS = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
Graph = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Rule = tuple[float, int, float]


def drawn_graph(rng: np.random.Generator) -> Graph:
    """Pairs (E, 2) of fragments 1 to N in any direction, merge scores, mean affinities, sizes of the fragments."""
    nodes = int(rng.integers(2, 13))
    pairs = rng.integers(1, nodes + 1, (int(rng.integers(0, 30)), 2))
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    pairs = np.where(rng.random((len(pairs), 1)) < 0.5, pairs, pairs[:, ::-1]).astype(np.uint64)
    scores = rng.choice([*LEVELS, np.nan, FORBIDDEN], len(pairs))
    return pairs, scores, rng.choice([0.1, 0.5, 0.9], len(pairs)), rng.integers(1, 10, nodes)


def drawn_rule(rng: np.random.Generator) -> Rule:
    """Threshold, size and lenient threshold."""
    return float(rng.choice(LEVELS)), int(rng.integers(0, 30)), float(rng.choice(LEVELS))


def joined(graph: Graph, threshold: float, below: int, lenient: float) -> np.ndarray:
    """(N,) the segment of each fragment."""
    pairs, scores, affinities, sizes = graph
    ids = np.arange(1, len(sizes) + 1, dtype=np.uint64)
    small = SmallSegments(below, lenient, ids, sizes, affinities)
    segments: np.ndarray = connected_components(ids, pairs, scores, threshold, small)[:, 1]
    return segments


def by_definition(graph: Graph, threshold: float, below: int, lenient: float) -> list[int]:
    """Edge after edge, with all segments counted anew each time."""
    pairs, scores, affinities, sizes = graph
    segment = list(range(len(sizes) + 1))
    order = sorted(
        (score, -affinity, min(pair), max(pair))
        for pair, score, affinity in zip(pairs.tolist(), scores, affinities, strict=True)
        if not np.isnan(score)
    )
    for score, _, u, v in order:
        voxels = [sum(sizes[n - 1] for n in range(1, len(segment)) if segment[n] == segment[end]) for end in (u, v)]
        if segment[u] != segment[v] and (score <= threshold or (min(voxels) < below and score <= lenient)):
            low, high = sorted((segment[u], segment[v]))
            segment = [low if own == high else own for own in segment]
    return segment[1:]


@pytest.mark.parametrize("seed", range(6))
def test_edges_join_as_the_rule_says_one_after_another(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(50):
        graph, rule = drawn_graph(rng), drawn_rule(rng)
        assert joined(graph, *rule).tolist() == by_definition(graph, *rule), (graph, rule)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_raised_only_joins_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(100):
        graph, rules = drawn_graph(rng), np.array([drawn_rule(rng), drawn_rule(rng)])
        low, high = rules.min(axis=0).tolist(), rules.max(axis=0).tolist()
        finer, coarser = joined(graph, *low), joined(graph, *high)
        assert len(set(zip(finer.tolist(), coarser.tolist(), strict=True))) == len(set(finer.tolist())), (graph, rules)


def test_the_order_and_direction_of_edges_decide_nothing() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        (pairs, scores, affinities, sizes), rule = drawn_graph(rng), drawn_rule(rng)
        order = rng.permutation(len(pairs))
        turned = (pairs[order][:, ::-1], scores[order], affinities[order], sizes)
        np.testing.assert_array_equal(joined(turned, *rule), joined((pairs, scores, affinities, sizes), *rule))


def test_a_small_one_joins_its_best_neighbour_and_does_not_bridge_two_large_ones() -> None:
    pairs = np.array([[1, 3], [2, 3], [1, 2]], np.uint64)
    graph = (pairs, np.array([0.6, 0.6, 0.5]), np.array([0.3, 0.5, 0.5]), np.array([100, 100, 2]))
    assert joined(graph, 0.4, 10, 0.7).tolist() == [1, 2, 2]
    assert joined(graph, 0.4, 10, 0.55).tolist() == [1, 2, 3]
    assert joined(graph, 0.5, 10, 0.7).tolist() == [1, 1, 1]
