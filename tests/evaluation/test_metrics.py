from __future__ import annotations

import numpy as np
import pytest
from skimage import metrics as skimage_metrics

from pipeline.evaluation import adapted_rand_error, contingency_table, cremi_score, variation_of_information
from pipeline.evaluation.sweep import scores_of_table


def random_pair(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 8, (3, 4, 4)), np.ones((2, 3, 3), int))
    noise = rng.random(labels.shape) < 0.2
    return np.where(noise, rng.integers(0, 9, labels.shape), labels + 3), labels


def test_a_label_cut_in_halves_costs_one_bit_of_split() -> None:
    labels = np.ones((2, 4), int)
    segmentation = np.array([[1, 1, 2, 2]] * 2)
    assert variation_of_information(segmentation, labels) == pytest.approx((1.0, 0.0))
    assert variation_of_information(labels, segmentation) == pytest.approx((0.0, 1.0))


def test_values_worked_by_hand() -> None:
    # 4 voxels of label 1, 4 of label 2; the segmentation gives one voxel of label 2 to the segment of label 1.
    labels = np.array([1, 1, 1, 1, 2, 2, 2, 2])
    segmentation = np.array([5, 5, 5, 5, 5, 6, 6, 6])
    split, merge = variation_of_information(segmentation, labels)
    assert split == pytest.approx(0.5 * (0.25 * 2 + 0.75 * np.log2(4 / 3)))
    assert merge == pytest.approx(5 / 8 * (0.8 * np.log2(1.25) + 0.2 * np.log2(5)))
    # ordered pairs n(n - 1): common parts (4, 1, 3) have 18, segments (5, 3) have 26, labels (4, 4) have 24
    assert adapted_rand_error(segmentation, labels) == pytest.approx(1 - 2 * 18 / (26 + 24))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ignore", [(), (0,), (0, 3)])
def test_variation_of_information_equals_scikit_image(seed: int, ignore: tuple[int, ...]) -> None:
    segmentation, labels = random_pair(seed)
    # scikit-image calls the first argument the truth: its first value is H(second | first)
    expected = skimage_metrics.variation_of_information(labels, segmentation, ignore_labels=ignore)
    assert variation_of_information(segmentation, labels, ignore_labels=ignore) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("seed", range(3))
def test_adapted_rand_error_equals_scikit_image(seed: int) -> None:
    segmentation, labels = random_pair(seed)
    expected, _, _ = skimage_metrics.adapted_rand_error(labels, segmentation, ignore_labels=(0,))
    assert adapted_rand_error(segmentation, labels) == pytest.approx(expected)


def test_names_of_ids_do_not_matter() -> None:
    segmentation, labels = random_pair()
    rng = np.random.default_rng(5)
    other = rng.choice(2**62, 20, replace=False).astype(np.uint64)[segmentation]
    renamed = np.where(labels == 0, 0, rng.permutation(50)[labels] + 1)
    assert variation_of_information(other, renamed) == pytest.approx(variation_of_information(segmentation, labels))
    assert adapted_rand_error(other, renamed) == pytest.approx(adapted_rand_error(segmentation, labels))


def test_equal_segmentations_are_perfect() -> None:
    segmentation, _ = random_pair()
    assert variation_of_information(segmentation + 7, segmentation) == pytest.approx((0, 0))
    assert adapted_rand_error(segmentation + 7, segmentation) == pytest.approx(0)


def test_segment_zero_counts_as_a_segment() -> None:
    labels = np.ones(8, int)
    assert variation_of_information(np.array([0, 0, 0, 0, 1, 1, 1, 1]), labels) == pytest.approx((1, 0))


@pytest.mark.parametrize("labels", [np.zeros((0, 3), int), np.zeros((2, 3), int), np.ones((1, 1), int)])
def test_nothing_to_compare_scores_zero(labels: np.ndarray) -> None:
    assert variation_of_information(np.ones_like(labels), labels) == (0, 0)
    assert adapted_rand_error(np.ones_like(labels), labels) == 0


def test_arrays_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        variation_of_information(np.ones((2, 3), int), np.ones((3, 2), int))


def test_the_cremi_score_is_the_geometric_mean_of_voi_and_adapted_rand_error() -> None:
    rng = np.random.default_rng(4)
    segmentation, labels = rng.integers(1, 6, (6, 8, 7)), rng.integers(0, 4, (6, 8, 7))
    split, merge = skimage_metrics.variation_of_information(labels, segmentation, ignore_labels=(0,))
    error, _, _ = skimage_metrics.adapted_rand_error(labels, segmentation, ignore_labels=(0,))
    expected = ((split + merge) * error) ** 0.5
    assert cremi_score(variation_of_information(segmentation, labels), error) == pytest.approx(expected)
    table = contingency_table(segmentation, labels)
    assert scores_of_table(table)["cremi_score"] == pytest.approx(expected, abs=1e-6)
    assert scores_of_table(contingency_table(labels, labels))["cremi_score"] == 0
