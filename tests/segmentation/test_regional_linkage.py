"""Linkage by regions against linkage of the whole graph, to the last bit, on graphs that make it hard."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest

from pipeline.segmentation import merge_scores
from pipeline.segmentation.cluster_edges import UNIT, ClusterEdges
from pipeline.segmentation.regional_linkage import NEVER, LinkedRegion, across_inner_borders, link_region

Graph = tuple[np.ndarray, np.ndarray, np.ndarray]


def graph_of(pairs: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> Graph:
    """Pairs (E, 2) uint64 with u < v, each once; sums in units and counts of those that were kept."""
    pairs = np.sort(np.asarray(pairs), axis=1)
    pairs, first = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0, return_index=True)
    return pairs.astype(np.uint64), sums[first].astype(np.int64), counts[first].astype(np.int64)


def drawn(rng: np.random.Generator, pairs: np.ndarray, levels: int) -> Graph:
    """A graph with few different affinities (0 to 1 in so many levels) and small counts, so that many are equal."""
    counts = rng.integers(1, 4, len(pairs))
    return graph_of(pairs, counts * rng.integers(0, levels + 1, len(pairs)) * (2**26 // levels), counts)


def random_graph(rng: np.random.Generator) -> Graph:
    nodes = int(rng.integers(3, 60))
    return drawn(rng, rng.integers(1, nodes, (3 * nodes, 2)), int(rng.choice([2, 5, 2**26])))


def lattice(rng: np.random.Generator) -> Graph:
    """Neighbours in a box, as fragments of a volume are."""
    ids = np.arange(1, 217).reshape(6, 6, 6)
    pairs = [np.stack([np.delete(ids, -1, a).ravel(), np.delete(ids, 0, a).ravel()], axis=1) for a in range(3)]
    return drawn(rng, np.concatenate(pairs), int(rng.choice([3, 2**26])))


def star(rng: np.random.Generator) -> Graph:
    """One hub that everything hangs on, and rays that touch their neighbours."""
    ids = np.arange(2, 60)
    pairs = np.concatenate([np.stack([np.full(len(ids), 1), ids], axis=1), np.stack([ids, ids + 1], axis=1)])
    return drawn(rng, pairs, int(rng.choice([4, 2**26])))


def chain(rng: np.random.Generator) -> Graph:
    """Each is nearest to the next: nothing may be merged before the far end is."""
    ids = np.arange(1, 80)
    means = np.linspace(0.1, 0.9, len(ids)) if rng.random() < 0.5 else np.full(len(ids), 0.5)
    return graph_of(np.stack([ids, ids + 1], axis=1), np.rint(means * 2**26), np.ones(len(ids)))


def giant(rng: np.random.Generator) -> Graph:
    """A component that takes in nearly everything at once, and pieces that touch it in many places."""
    pairs = rng.integers(1, 90, (500, 2))
    close = (pairs < 60).all(axis=1)
    means = np.where(close, 0.99, rng.random(len(pairs)))
    counts = rng.integers(1, 100, len(pairs))
    return graph_of(pairs, np.rint(means * counts * 2**26), counts)


def islands(rng: np.random.Generator) -> Graph:
    """Small components without a path between them."""
    first = np.repeat(np.arange(0, 200, 4), 3)
    return drawn(rng, np.stack([first + rng.integers(1, 4, len(first)), first + rng.integers(1, 5, len(first))], 1), 3)


GRAPHS = [random_graph, lattice, star, chain, giant, islands]


def whole(graph: Graph) -> np.ndarray:
    pairs, sums, counts = graph
    return merge_scores(pairs, sums * UNIT / counts, counts)


def by_definition(graph: Graph) -> list[float]:
    """Average linkage in fractions: the nearest two clusters of all, of several the ones with the smallest edge."""
    pairs, sums, counts = graph
    cluster = {int(node): int(node) for node in np.unique(pairs)}
    scores = [np.nan] * len(pairs)
    while True:
        across: dict[tuple[int, int], list[int]] = {}
        for edge, (u, v) in enumerate(pairs.tolist()):
            if cluster[u] != cluster[v]:
                across.setdefault((min(cluster[u], cluster[v]), max(cluster[u], cluster[v])), []).append(edge)
        if not across:
            return scores
        means = {
            pair: Fraction(int(sums[edges].sum()), int(counts[edges].sum()) * 2**26) for pair, edges in across.items()
        }
        best = min(across, key=lambda pair: (-means[pair], min(tuple(pairs[e].tolist()) for e in across[pair])))
        for edge in across[best]:
            scores[edge] = round(float(1 - means[best]), 6)
        cluster = {node: best[0] if own == best[1] else own for node, own in cluster.items()}


def by_regions(graph: Graph, levels: list[np.ndarray], order: np.random.Generator, maximum: float = 1.0) -> np.ndarray:
    """Up and down a tree of regions.

    Args:
        graph: what to link.
        levels: for each level the region of each node, by id; regions of one level lie in one of the next, of which
            the last is one region.
        order: of the regions within a level.
        maximum: highest score of interest.
    """
    pairs, sums, counts = graph
    edges = ClusterEdges.of_fragments(pairs[:, 0], pairs[:, 1], sums * UNIT, counts)
    below, seen_below = [edges], [ClusterEdges.empty()]
    linked: list[list[tuple[LinkedRegion, np.ndarray, np.ndarray]]] = []
    for level, region in enumerate(levels):
        edges, seen = ClusterEdges.concatenate(below), ClusterEdges.concatenate(seen_below)
        of_u, of_v = region[edges.u.astype(int)], region[edges.v.astype(int)]
        if level == 0:
            seen = edges.select(of_u != of_v)  # an edge belongs to the region of its larger fragment; the other sees it
        seen_of_u, seen_of_v = region[seen.u.astype(int)], region[seen.v.astype(int)]
        below, seen_below, done, first = [], [], [], 0
        for name in order.permutation(np.unique(region[1:])).tolist():
            rows = np.flatnonzero(of_v == name)
            from_here = seen_of_u == name
            own, known = across_inner_borders(edges.select(rows), seen.select(from_here), seen_of_v[from_here] == name)
            result = link_region(own, of_u[rows] != name, known, maximum)
            done.append((result, rows, first + np.arange(len(result.edges))))
            first += len(result.edges)
            below.append(result.edges)
            seen_below.append(result.seen)
        linked.append(done)
    assert sum(len(table) for table in below) == 0, "nothing goes up from the last region"
    scores = np.zeros(0)
    for done in reversed(linked):
        below_scores = np.full(sum(len(rows) for _, rows, _ in done), np.nan)
        for result, rows, up in done:
            below_scores[rows] = result.scores(scores[up])
        scores = below_scores
    return scores


def regions(rng: np.random.Generator, largest: int) -> Iterator[np.ndarray]:
    """Levels of ever fewer regions, in any shape, the last one of which is everything."""
    count = int(rng.integers(2, 12))
    region = rng.integers(0, count, largest + 1) if rng.random() < 0.5 else np.arange(largest + 1) * count // largest
    yield region
    while count > 1:
        smaller = int(rng.integers(1, count))
        region, count = rng.integers(0, smaller, region.max() + 1)[region], smaller
        yield region


@pytest.mark.parametrize("make", [random_graph, star, chain, islands])
@pytest.mark.parametrize("seed", range(3))
def test_the_whole_graph_is_linked_as_the_definition_says(make: Callable[..., Graph], seed: int) -> None:
    graph = make(np.random.default_rng(seed))
    assert whole(graph).tolist() == by_definition(graph)


@pytest.mark.parametrize("make", GRAPHS)
def test_any_tree_of_regions_gives_the_scores_of_the_whole_graph(make: Callable[..., Graph]) -> None:
    for seed in range(25):
        rng = np.random.default_rng(seed)
        graph = make(rng)
        levels = list(regions(rng, int(graph[0].max())))
        assert np.array_equal(by_regions(graph, levels, rng), whole(graph)), f"seed {seed}"


@pytest.mark.parametrize("make", GRAPHS)
def test_scores_up_to_the_maximum_are_those_of_the_whole_graph(make: Callable[..., Graph]) -> None:
    for seed, maximum in itertools.product(range(8), (0.0, 0.5, 0.75)):
        rng = np.random.default_rng(seed)
        graph = make(rng)
        expected = whole(graph)
        scores = by_regions(graph, list(regions(rng, int(graph[0].max()))), rng, maximum)
        wanted = expected <= maximum
        assert np.array_equal(scores[wanted], expected[wanted])
        assert (scores[~wanted] > maximum).all() and (scores[~wanted] <= NEVER).all()


def test_what_is_complete_is_merged_in_its_region() -> None:
    # 4 has an edge to 5 beyond the border, nearer than 3, so 3-4 waits; 1-2 is sure, and then waits for 3.
    u, v, ones = np.array([1, 2, 3]), np.array([2, 3, 4]), np.ones(3, int)
    edges = ClusterEdges.of_fragments(u, v, np.array([0.75, 0.25, 0.5]), ones)
    linked = link_region(edges, np.zeros(3, bool), one_edge(4, 5, 0.625))
    assert linked.score[0] == 0.25
    assert linked.target.tolist() == [-1, 0, 1]
    assert list(zip(linked.edges.u.tolist(), linked.edges.v.tolist(), strict=True)) == [(1, 3), (3, 4)]


@pytest.mark.parametrize("owned", [True, False])
def test_who_touches_the_border_is_merged_with_what_is_nearer_than_all_beyond(owned: bool) -> None:
    inside, across = one_edge(2, 3, 0.75), one_edge(1, 2, 0.5) if owned else one_edge(3, 5, 0.5)
    edges = ClusterEdges.concatenate([inside, across]) if owned else inside
    linked = link_region(edges, np.arange(len(edges)) == 1, ClusterEdges.empty() if owned else across)
    assert linked.score[0] == 0.25 and linked.target[0] == -1
    if owned:
        assert (linked.edges.u.tolist(), linked.edges.v.tolist()) == ([1], [2])
    else:
        assert (linked.seen.u.tolist(), linked.seen.first_u.tolist(), len(linked.edges)) == ([2], [3], 0)


def test_of_equal_scores_the_smaller_edge_is_nearer_also_across_the_border() -> None:
    inside = one_edge(2, 3, 0.5)
    waits = link_region(
        ClusterEdges.concatenate([inside, one_edge(1, 3, 0.5)]), np.array([False, True]), ClusterEdges.empty()
    )
    merged = link_region(inside, np.array([False]), one_edge(3, 4, 0.5))
    assert (waits.target >= 0).all()
    assert merged.target.tolist() == [-1]


def test_an_edge_above_the_maximum_is_kept_for_the_mean_if_another_region_has_a_part_of_it() -> None:
    # 1 and 3 are one here, and too far from 2. The region of 2 cannot know that, and hands on how near 1 is to 2.
    edges, other = ClusterEdges.concatenate([one_edge(1, 3, 0.9375), one_edge(2, 3, 0.25)]), one_edge(1, 2, 0.875)
    linked = link_region(edges, np.array([False, True]), other, maximum_score=0.25)
    assert linked.target.tolist() == [-1, 0]
    alone = link_region(edges, np.array([False, True]), ClusterEdges.empty(), maximum_score=0.25)
    assert (alone.target.tolist(), alone.score[1]) == ([-1, -1], NEVER)


def one_edge(u: int, v: int, mean: float) -> ClusterEdges:
    return ClusterEdges.of_fragments(np.array([u]), np.array([v]), np.array([mean]), np.array([1]))


def test_sums_beyond_what_floats_hold_are_compared_exactly() -> None:
    # The two means differ by 2**-62; as floats they are equal, and the smaller pair would come first.
    sums, counts = np.array([2**60, 2**60 + 1, 0]), np.array([2**36, 2**36, 2**36])
    u, v = np.array([1, 2, 1], np.uint64), np.array([3, 3, 2], np.uint64)
    edges = ClusterEdges(u, v, u, v, sums, counts)
    linked = link_region(edges, np.zeros(3, bool), ClusterEdges.empty())
    assert linked.score.tolist() == [0.875, 0.75, 0.875], "2-3 is merged first, and 1 joins both at once"


def test_sums_that_were_not_made_of_quantised_affinities_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        ClusterEdges.of_fragments(np.array([1]), np.array([2]), np.array([0.1]), np.array([3]))
