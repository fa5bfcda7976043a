"""Scores of objects on a background, against values worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.evaluation import aggregated_jaccard_index, dice, f1_score, panoptic_quality

#                   object 1      object 2     3
LABELS = np.array([1, 1, 1, 1, 0, 2, 2, 2, 0, 3, 0, 0])
# segment 7 has 3 of 4 voxels of object 1; 8 has 1 of 3 of object 2; 3 is missed; 9 is no object
SEGMENTS = np.array([7, 7, 7, 0, 0, 8, 0, 0, 0, 0, 9, 9])


def test_hand_computed_scores() -> None:
    assert dice(SEGMENTS, LABELS) == pytest.approx(2 * 4 / (6 + 8))
    assert f1_score(SEGMENTS, LABELS) == pytest.approx(2 * 1 / (3 + 3))
    assert panoptic_quality(SEGMENTS, LABELS) == pytest.approx((0.75 / 3, 0.75, 1 / 3))
    assert aggregated_jaccard_index(SEGMENTS, LABELS) == pytest.approx((3 + 1) / (4 + 3 + 1 + 2))


def test_perfect_whatever_the_ids() -> None:
    renamed = np.array([0, 2**40, 5, 1])[LABELS]
    for score in (dice, f1_score, aggregated_jaccard_index):
        assert score(renamed, LABELS) == 1
    assert panoptic_quality(renamed, LABELS) == (1, 1, 1)


def test_half_an_object_is_no_match() -> None:
    assert f1_score(np.array([1, 1, 0, 0]), np.array([1, 1, 1, 1])) == 0


def test_merged_objects_share_the_segment_that_each_meets() -> None:
    labels = np.array([1, 1, 1, 2, 2, 0])
    merged = np.array([4, 4, 4, 4, 4, 0])
    assert aggregated_jaccard_index(merged, labels) == pytest.approx((3 + 2) / (5 + 5))
    assert f1_score(merged, labels) == pytest.approx(2 / 3)


@pytest.mark.parametrize("score", [dice, f1_score, aggregated_jaccard_index])
def test_empty_images_have_a_score(score: Callable[[np.ndarray, np.ndarray], float]) -> None:
    empty, full = np.zeros((4, 4), int), np.ones((4, 4), int)
    assert score(empty, empty) == 1
    assert score(full, empty) == 0
    assert score(empty, full) == 0


def test_images_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        dice(np.zeros((2, 3), int), np.zeros((3, 2), int))
