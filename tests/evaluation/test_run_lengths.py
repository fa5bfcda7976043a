"""Run lengths equal published cases and a plain count on networkx graphs."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from pipeline.evaluation import RunLengths, Skeletons, expected_run_length, run_lengths


def of_edges(owner: list[int], edges: list[tuple[int, int, float]]) -> Skeletons:
    """Skeletons whose edges have given lengths."""
    pairs = np.array([edge[:2] for edge in edges], np.int64).reshape(-1, 2)
    names = tuple(str(index) for index in range(max(owner) + 1))
    lengths = np.array([edge[2] for edge in edges], float)
    return Skeletons(names, np.array(owner), np.zeros((len(owner), 3)), pairs, lengths)


CHAIN = [(0, 1, 10.0), (1, 2, 20.0)]
PUBLISHED = {
    "perfect": ([0, 0], [(0, 1, 100.0)], [5, 5], [100]),
    "split": ([0, 0], [(0, 1, 100.0)], [5, 6], [0]),
    "two runs": ([0] * 6, [(0, 1, 10.0), (2, 3, 20.0), (4, 5, 30.0)], [5, 5, 5, 5, 9, 9], [(30**2 + 30**2) / 60]),
    "omitted": ([0] * 3, CHAIN, [5, 0, 0], [0]),
    "two segments": ([0] * 4, [(0, 1, 20.0), (1, 2, 10.0), (2, 3, 30.0)], [5, 5, 9, 9], [(20**2 + 30**2) / 60]),
    "merged in part": ([0, 0, 0, 1, 1], [*CHAIN, (3, 4, 10.0)], [5, 5, 99, 99, 99], [10**2 / 30, 0]),
    "three skeletons": (
        [0, 0, 0, 0, 1, 1, 2, 2],
        [(0, 1, 10.0), (1, 2, 15.0), (2, 3, 25.0), (4, 5, 20.0), (6, 7, 30.0)],
        [7, 7, 100, 100, 100, 100, 3, 3],
        [10**2 / 50, 0, 30],
    ),
}
"""What the unit tests of em_erl (PytorchConnectomics) state: owners, edges, segments of nodes, ERL of each skeleton."""


@pytest.mark.parametrize("case", PUBLISHED)
def test_cases_that_em_erl_states(case: str) -> None:
    owner, edges, segments, expected = PUBLISHED[case]
    lengths = run_lengths(of_edges(owner, edges), np.array(segments, np.uint64))
    assert lengths.erl.tolist() == pytest.approx(expected)
    total = [sum(edge[2] for edge in edges if owner[edge[0]] == index) for index in range(len(expected))]
    assert lengths.expected == pytest.approx(np.average(expected, weights=total))
    assert lengths.highest == pytest.approx(np.average(total, weights=total))
    assert lengths.normalised == pytest.approx(lengths.expected / lengths.highest)


def test_omitted_edges_are_told_from_split_ones() -> None:
    lengths = run_lengths(of_edges([0] * 3, CHAIN), np.array([5, 0, 0], np.uint64))
    assert (lengths.omitted.tolist(), lengths.split.tolist(), lengths.correct.tolist()) == ([2], [0], [0])


def test_the_example_of_em_erl_with_and_without_its_mask() -> None:
    """Its readme: of two axons of about 4 micrometres one is cut in the middle, one merged with a dendrite."""
    axons = of_edges([0, 0, 1, 1, 1, 1], [(0, 1, 3.9997), (2, 3, 2.238), (3, 4, 0.0427), (4, 5, 2.238)])
    segments = np.array([7, 7, 8, 8, 9, 9], np.uint64)
    lengths = run_lengths(axons, segments)
    assert (round(lengths.highest, 3), round(lengths.expected, 3)) == (4.275, 3.054)
    lengths = run_lengths(axons, segments, masked=np.array([7], np.uint64))
    assert round(lengths.expected, 3) == 1.176
    assert lengths.merges.tolist() == [1, 0] and lengths.merged.tolist() == [1, 0]


def counted(skeletons: Skeletons, segments: np.ndarray, threshold: int, masked: set[int]) -> dict[str, list[float]]:
    """The same, edge by edge."""
    graphs = [nx.Graph() for _ in skeletons.names]
    for node, owner in enumerate(skeletons.owner.tolist()):
        graphs[owner].add_node(node, segment=int(segments[node]))
    for (u, v), length in zip(skeletons.edges.tolist(), skeletons.lengths.tolist(), strict=True):
        graphs[skeletons.owner[u]].add_edge(u, v, length=length)

    def touches(graph: nx.Graph, segment: int) -> int:
        return sum(found == segment for _, found in graph.nodes(data="segment"))

    wrong = {
        segment
        for segment in set(segments.tolist()) - {0}
        if segment in masked or sum(touches(graph, segment) >= threshold for graph in graphs) > 1
    }
    results: dict[str, list[float]] = {name: [] for name in ("erl", "correct", "split", "merged", "omitted", "merges")}
    for graph in graphs:
        kinds: dict[str, list[tuple[int, float]]] = {name: [] for name in ("correct", "split", "merged", "omitted")}
        for u, v, length in graph.edges(data="length"):
            one, other = graph.nodes[u]["segment"], graph.nodes[v]["segment"]
            kind = (
                "omitted" if 0 in (one, other) else "split" if one != other else "merged" if one in wrong else "correct"
            )
            kinds[kind].append((one, length))
        runs = {
            segment: sum(length for s, length in kinds["correct"] if s == segment) for segment, _ in kinds["correct"]
        }
        total = sum(length for _, _, length in graph.edges(data="length"))
        results["erl"].append(sum(run**2 for run in runs.values()) / total if total else 0)
        for name, edges in kinds.items():
            results[name].append(len(edges))
        results["merges"].append(len({s for _, s in graph.nodes(data="segment")} & wrong))
    return results


@pytest.mark.parametrize("seed", range(12))
def test_random_skeletons_equal_a_count_edge_by_edge(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(5, 60))
    owner = np.sort(rng.integers(0, 6, nodes))
    _, owner = np.unique(owner, return_inverse=True)
    order = rng.permutation(nodes)
    owner = owner[order]  # nodes of a skeleton need not stand together
    edges = [
        (int(rng.choice(before)), node)
        for node in range(nodes)
        if len(before := np.flatnonzero(owner[:node] == owner[node])) and rng.random() < 0.9
    ]
    names = [str(index) for index in range(owner.max() + 1)]
    skeletons = Skeletons.of(names, owner, rng.normal(0, 100, (nodes, 3)), np.array(edges))
    segments = rng.integers(0, 5 + 3 * (seed % 4), nodes).astype(np.uint64)
    threshold, masked = 1 + seed % 3, {3} if seed % 2 else set()
    lengths = run_lengths(skeletons, segments, threshold, np.array(sorted(masked), np.uint64))
    for name, values in counted(skeletons, segments, threshold, masked).items():
        assert getattr(lengths, name).tolist() == pytest.approx(values), name
    if not masked:
        graphs = [nx.Graph() for _ in names]
        for node in range(nodes):
            graphs[owner[node]].add_node(node, position=skeletons.positions[node])
        for u, v in edges:
            graphs[owner[u]].add_edge(u, v)
        own = {node: int(segments[node]) for node in range(nodes)}
        assert expected_run_length(graphs, own, merge_nodes=threshold) == pytest.approx(lengths.expected)


def test_what_leaves_a_region_is_left_out_with_its_edges() -> None:
    skeletons = Skeletons.joined([of_edges([0] * 3, CHAIN), of_edges([0, 0], [(0, 1, 40.0)])])
    inside = np.array([False, True, True, False, False])
    part = skeletons.within(inside)
    assert (part.names, part.edges.tolist(), part.lengths.tolist()) == (("0",), [[0, 1]], [20.0])
    assert run_lengths(part, np.array([4, 4], np.uint64)).normalised == 1


def test_skeletons_without_length_have_no_run() -> None:
    lengths: RunLengths = run_lengths(of_edges([0], []), np.array([4], np.uint64))
    assert (lengths.expected, lengths.highest, lengths.normalised) == (0, 0, 0)
