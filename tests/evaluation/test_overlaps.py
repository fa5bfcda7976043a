from __future__ import annotations

import numpy as np
import pytest
from funlib.geometry import Coordinate
from skimage.measure import label as label_parts

from pipeline.evaluation import LabelRules, count_overlaps, prepare_labels, variation_of_information
from pipeline.evaluation.metrics import rand_error_of_table, voi_of_table
from pipeline.evaluation.overlaps import InMemory
from pipeline.evaluation.sweep import best_of, sweep_thresholds
from pipeline.segmentation import agglomerate_global, merge_scores, relabel
from pipeline.volumes import Box

SHAPE = (11, 17, 13)


def volumes(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A segmentation and labels with many crumbs and winding parts."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, SHAPE, p=[0.1, 0.5, 0.3, 0.1]).astype(np.uint64)
    return rng.integers(0, 9, SHAPE).astype(np.uint64), labels


@pytest.mark.parametrize("block_shape", [(1, 6, 5), (3, 5, 4), (11, 17, 13), (64, 256, 256), (2, 17, 1)])
@pytest.mark.parametrize("rules", [LabelRules(), LabelRules(relabel=True), LabelRules(True, 7), LabelRules(False, 300)])
def test_blocks_count_what_the_whole_volume_counts(block_shape: tuple[int, int, int], rules: LabelRules) -> None:
    segmentation, labels = volumes()
    table = count_overlaps(
        InMemory(segmentation), InMemory(labels), Box.of_shape(SHAPE), rules=rules, block_shape=block_shape
    )
    objects = prepare_labels(labels, rules)
    assert table.total == (objects > 0).sum()
    assert len(table.label_sizes()) == len(np.unique(objects[objects > 0]))
    assert voi_of_table(table) == pytest.approx(variation_of_information(segmentation, objects))


def test_parts_are_those_that_scikit_image_finds() -> None:
    _, labels = volumes()
    ours, theirs = prepare_labels(labels, LabelRules(relabel=True)), label_parts(labels, connectivity=1)
    pairs = np.unique(np.stack([ours.ravel(), theirs.ravel().astype(np.uint64)]), axis=1)
    assert len(pairs[0]) == len(np.unique(ours)) == len(np.unique(theirs))


def test_a_ring_through_many_blocks_is_one_object() -> None:
    labels = np.zeros((9, 9, 9), np.uint64)
    labels[4, 1:8, 1:8] = 5
    labels[4, 2:7, 2:7] = 0
    table = count_overlaps(
        InMemory(labels), InMemory(labels), Box.of_shape((9, 9, 9)), rules=LabelRules(True), block_shape=(2, 2, 2)
    )
    assert len(table.label_sizes()) == 1


def test_small_parts_of_large_labels_do_not_count() -> None:
    labels = np.zeros((1, 1, 10), np.uint64)
    labels[..., :6], labels[..., 8:] = 3, 3
    assert prepare_labels(labels, LabelRules(True, 3)).tolist() == [[[1] * 6 + [0] * 4]]
    assert (prepare_labels(labels, LabelRules(False, 3)) == labels).all()


def test_a_region_is_compared_with_the_segmentation_at_its_place() -> None:
    segmentation, labels = volumes()
    part = segmentation[3:, 5:, 2:]
    box = Box(Coordinate(4, 6, 3), Coordinate(9, 12, 13))
    table = count_overlaps(InMemory(part), InMemory(labels), box, shift=(3, 5, 2), block_shape=(2, 4, 4))
    assert voi_of_table(table) == pytest.approx(variation_of_information(segmentation[box.slices], labels[box.slices]))


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7)])
def test_one_voxel_and_two_dimensions(shape: tuple[int, ...]) -> None:
    labels = InMemory(np.ones(shape, np.uint8))
    table = count_overlaps(labels, labels, Box.of_shape(shape), rules=LabelRules(True), block_shape=(3, 3, 3))
    assert voi_of_table(table) == (0, 0)
    assert len(table.label_sizes()) == 1


def test_background_alone_leaves_an_empty_table() -> None:
    nothing = InMemory(np.zeros((4, 4, 4), np.uint64))
    table = count_overlaps(nothing, nothing, Box.of_shape((4, 4, 4)), rules=LabelRules(True, 5))
    assert table.total == 0
    assert rand_error_of_table(table) == 0


def test_the_sweep_scores_what_relabelled_volumes_score() -> None:
    fragments, labels = volumes()
    rng = np.random.default_rng(3)
    edges = np.array([(u, v) for u in range(1, 9) for v in range(u + 1, 9) if rng.random() < 0.5], np.uint64)
    mean, count = rng.random(len(edges)), rng.integers(1, 9, len(edges))
    thresholds = [0.1, 0.4, 0.9]
    table = count_overlaps(InMemory(fragments), InMemory(labels), Box.of_shape(SHAPE))
    scores = sweep_thresholds(table, edges, merge_scores(edges, mean, count), thresholds)
    for threshold, lut in agglomerate_global(edges, mean, count, thresholds, nodes=np.arange(1, 9)).items():
        voi = variation_of_information(relabel(fragments, lut[:, 0], lut[:, 1]), labels)
        assert scores[threshold]["voi_split"] == pytest.approx(voi.split, abs=1e-6)
        assert scores[threshold]["voi_merge"] == pytest.approx(voi.merge, abs=1e-6)
    assert best_of(scores) in thresholds


def test_of_equally_good_thresholds_the_one_that_merges_least_is_best() -> None:
    assert best_of({0.6: {"voi_sum": 1.0}, 0.3: {"voi_sum": 1.0}, 0.1: {"voi_sum": 2.0}}) == 0.3
