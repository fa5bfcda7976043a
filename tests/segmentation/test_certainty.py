"""Certainty is what it says: 1 where nothing is in doubt, and less the more voxels a doubtful join would move."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest

from pipeline.segmentation import FORBIDDEN, certainty_of
from pipeline.segmentation.certainty import joins

CHAIN = np.array([[0, 1], [1, 2]])


def certainty(sizes: list[int], scores: list[float], threshold: float = 0.5, edges: np.ndarray = CHAIN) -> float:
    return certainty_of(np.array(sizes), edges, np.array(scores), threshold)


def test_doubt_is_what_a_wrong_decision_costs_times_how_likely_it_is() -> None:
    assert certainty([50, 50], [0.6], edges=CHAIN[:1]) == pytest.approx(2**-0.4)  # kept apart at an affinity of 0.4
    assert certainty([50, 50], [0.4], edges=CHAIN[:1]) == pytest.approx(2**-0.16)
    assert certainty([50, 50], [0.5], edges=CHAIN[:1]) == pytest.approx(2**-0.25)  # joined: up to the threshold
    a, b = 30, 70
    bits = (100 * log2(100) - a * log2(a) - b * log2(b)) / 100
    assert certainty([a, b], [0.6], edges=CHAIN[:1]) == pytest.approx(2 ** (-0.4 * bits))
    assert certainty([a, b], [0.6], 0.7, CHAIN[:1]) == pytest.approx(2 ** (-0.36 * bits)), "below that threshold"


def test_far_from_the_threshold_nothing_is_in_doubt_on_either_side() -> None:
    for score in (0.0, 1.0):
        assert certainty([50, 50], [score], edges=CHAIN[:1]) == 1.0
    assert certainty([10, 20, 30], [np.nan, np.nan]) == 1.0
    assert certainty([10, 20, 30], [FORBIDDEN, FORBIDDEN]) == 1.0, "what may never be joined is no decision"
    assert certainty([10], [], edges=CHAIN[:0]) == 1.0
    assert certainty([], [], edges=CHAIN[:0]) == 0.0


def test_doubt_about_much_costs_more_than_doubt_about_little() -> None:
    large, small = certainty([500, 500, 5], [0.6, 0.0]), certainty([500, 500, 5], [0.0, 0.6])
    assert large < small < 1


def test_a_group_is_joined_once_with_all_that_it_has_by_then() -> None:
    edges = np.array([[0, 1], [0, 2], [1, 2]])
    score, one, other = joins(np.array([1, 2, 4]), edges, np.array([0.2, 0.7, 0.4]))
    np.testing.assert_array_equal(score, [0.2, 0.4])  # the edge at 0.7 lies inside what is joined already
    np.testing.assert_array_equal(np.sort([one, other], axis=0), [[1, 3], [2, 4]])


def test_order_and_direction_of_edges_do_not_matter() -> None:
    random = np.random.default_rng(0)
    sizes, edges = random.integers(1, 99, 40), np.array([(i, j) for i in range(40) for j in range(i) if (i + j) % 3])
    scores = np.round(random.uniform(0, 1, len(edges)), 1)  # many alike
    expected = certainty_of(sizes, edges, scores, 0.4)
    for _ in range(5):
        order = random.permutation(len(edges))
        assert certainty_of(sizes, edges[order], scores[order], 0.4) == expected
