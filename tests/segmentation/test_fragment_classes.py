"""Fragments of different classes are never joined, and each has the class of most of its voxels."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from pipeline.segmentation import (
    ALONE,
    FORBIDDEN,
    FragmentClasses,
    agglomerate_global,
    agglomerate_waterz,
    connected_components,
    majority_classes,
    merge_scores,
    waterz_edge_scores,
)
from pipeline.segmentation.cluster_edges import UNIT

ALONE_CLASS = 3


Graph = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def drawn_graph(rng: np.random.Generator) -> Graph:
    """Pairs (E, 2), whole affinity sums, counts, and a class (0 to 3) of each fragment 1 to N; the first is of none."""
    nodes = int(rng.integers(2, 15))
    pairs = rng.integers(1, nodes + 1, (3 * nodes, 2))
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0).astype(np.uint64)
    counts = rng.integers(1, 4, len(pairs))
    sums = counts * rng.integers(0, 7, len(pairs)) * (2**26 // 6)
    return pairs, sums, counts, rng.choice([0, 1, ALONE_CLASS], nodes + 1, p=[0.6, 0.3, 0.1])


def by_definition(
    pairs: np.ndarray, sums: np.ndarray, counts: np.ndarray, classes: np.ndarray, threshold: float
) -> dict[int, int]:
    """Average linkage up to a threshold that looks at the classes at every single merge, in fractions."""
    cluster = {node: node for node in range(1, len(classes))}
    while True:
        across: dict[tuple[int, int], list[int]] = {}
        for edge, (u, v) in enumerate(pairs.tolist()):
            kinds = {int(classes[u]), int(classes[v])}
            if cluster[u] != cluster[v] and len(kinds) == 1 and ALONE_CLASS not in kinds:
                across.setdefault((min(cluster[u], cluster[v]), max(cluster[u], cluster[v])), []).append(edge)
        means = {p: Fraction(int(sums[e].sum()), int(counts[e].sum()) * 2**26) for p, e in across.items()}
        near = [pair for pair in across if round(float(1 - means[pair]), 6) <= threshold]
        if not near:
            return cluster
        best = min(near, key=lambda pair: (-means[pair], min(tuple(pairs[e].tolist()) for e in across[pair])))
        cluster = {node: best[0] if own == best[1] else own for node, own in cluster.items()}


@pytest.mark.parametrize("seed", range(6))
def test_linkage_is_that_of_a_slow_one_which_looks_at_the_classes_of_every_merge(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        pairs, sums, counts, kinds = drawn_graph(rng)
        nodes, threshold = np.arange(1, len(kinds)), float(rng.choice([0.0, 0.2, 0.5, 0.8, 1.0]))
        classes = FragmentClasses.of(nodes, kinds[1:], alone=[ALONE_CLASS])
        lut = agglomerate_global(pairs, sums * UNIT / counts, counts, [threshold], nodes, classes)[threshold]
        assert dict(lut.tolist()) == by_definition(pairs, sums, counts, kinds, threshold)


def test_forbidden_edges_join_at_no_threshold() -> None:
    edges = np.array([[1, 2], [2, 3], [3, 4]], np.uint64)
    classes = FragmentClasses.of(np.array([4, 3, 2, 1]), np.array([7, 7, 0, 0]), alone=[7])
    scores = merge_scores(edges, np.array([0.0, 1.0, 1.0]), np.ones(3), classes)
    np.testing.assert_array_equal(scores, [1.0, FORBIDDEN, FORBIDDEN])
    lut = connected_components(np.arange(1, 5), edges, scores, 1.0)
    np.testing.assert_array_equal(lut[:, 1], [1, 1, 3, 4])


@pytest.mark.parametrize("ids", [[0, 5, 6, 7], [0, 5, 900, 2**40]])
@pytest.mark.parametrize("kinds", [[0, 1, 2], [0, 7, 2**63, 2**64 - 2], [4]])
def test_a_fragment_has_the_class_of_most_of_its_voxels_of_equally_many_the_smallest(
    ids: list[int], kinds: list[int]
) -> None:
    rng = np.random.default_rng(4)
    for _ in range(30):
        shape = (1, 2, int(rng.integers(1, 20)))
        fragments, voxels = rng.choice(np.array(ids, np.uint64), shape), rng.choice(np.array(kinds, np.uint64), shape)
        counted: dict[int, Counter[int]] = {}
        for fragment, kind in zip(fragments.ravel().tolist(), voxels.ravel().tolist(), strict=True):
            counted.setdefault(fragment, Counter())[kind] += 1
        counted.pop(0, None)
        expected = {own: min(found, key=lambda kind: (-found[kind], kind)) for own, found in counted.items()}
        found_ids, found = majority_classes(fragments, voxels)
        assert found_ids.tolist() == sorted(expected)
        assert dict(zip(found_ids.tolist(), found.tolist(), strict=True)) == expected


def test_a_mask_of_bools_is_two_classes() -> None:
    fragments = np.array([[[1, 1, 1, 2, 2]]])
    found = FragmentClasses.of_voxels(fragments, np.array([[[True, True, False, False, True]]]), alone=[1])
    assert found.of_fragments(np.array([2, 1, 9])).tolist() == [0, int(ALONE), 0]


@pytest.mark.parametrize(
    ("classes", "said"),
    [(np.zeros(2), "float64"), (np.array([0, -1]), "-1"), (np.array([0, 2**64 - 1], np.uint64), "largest")],
)
def test_what_is_no_class_is_refused(classes: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FragmentClasses.of(np.array([1, 2]), classes)
    with pytest.raises(ValueError, match=said):
        majority_classes(np.array([[[1, 2]]]), classes.reshape(1, 1, 2))


def test_waterz_sees_no_edge_that_classes_forbid() -> None:
    """As if the fragments of other classes were not there: their contacts count in no mean."""
    rng = np.random.default_rng(3)
    fragments = np.arange(1, 28, dtype=np.uint64).reshape(3, 3, 3).repeat(3, 0).repeat(3, 1).repeat(3, 2)
    affinities = rng.random((3, *fragments.shape)).astype(np.float32)
    ids = np.unique(fragments)
    kinds = rng.integers(0, 4, len(ids))
    classes = FragmentClasses.of(ids, kinds, alone=[ALONE_CLASS])
    edges, scores = waterz_edge_scores(affinities, fragments, classes=classes)
    assert len(edges)
    assert not classes.forbid(edges).any()
    everything, _ = waterz_edge_scores(affinities, fragments)
    np.testing.assert_array_equal(edges, everything[~classes.forbid(everything)])
    for kind in range(ALONE_CLASS):
        only = np.where(np.isin(fragments, ids[kinds == kind]), fragments, 0)
        found, expected = waterz_edge_scores(affinities, only)
        rows = np.isin(edges[:, 0], ids[kinds == kind])
        np.testing.assert_array_equal(edges[rows], found)
        np.testing.assert_array_equal(scores[rows], expected)
    at = agglomerate_waterz(affinities, fragments, [0.5, 1.0], classes=classes)
    for threshold, segments in at.items():
        lut = connected_components(ids, edges, scores, threshold)
        np.testing.assert_array_equal(segments, lut[:, 1][np.searchsorted(lut[:, 0], fragments)])
