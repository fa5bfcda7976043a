"""Fragments of objects on a background, and of images that know nothing of each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.segmentation import make_fragments, mutex_watershed
from pipeline.segmentation.fragmentation import mean_affinity_to_neighbours
from pipeline.segmentation.mutex import mutex_fragments

NEAR = ((0, -1, 0), (0, 0, -1))
OFFSETS = (*NEAR, (0, -4, 0), (0, 0, -4))
MUTEX: dict[str, Any] = {"method": "mutex_watershed", "attraction_bias": -0.5, "repulsion_bias": -0.5}


def affinities_of(labels: np.ndarray, offsets: tuple[tuple[int, int, int], ...] = OFFSETS) -> np.ndarray:
    """Perfect affinities of objects on a background, (k, z, y, x) float32; pairs that leave the array have none."""
    affinities = np.zeros((len(offsets), *labels.shape), np.float32)
    for channel, (_, y, x) in zip(affinities, offsets, strict=True):
        inner, partner = labels[:, -y:, -x:], labels[:, : labels.shape[1] + y, : labels.shape[2] + x]
        channel[:, -y:, -x:] = (inner == partner) & (inner > 0)
    return affinities


def discs(sections: int = 2) -> np.ndarray:
    """(z, 40, 40) two touching discs and one apart, the same ones in every section."""
    y, x = np.indices((40, 40))
    image = np.zeros((40, 40), np.int64)
    for label, (cy, cx) in enumerate([(12, 10), (12, 20), (30, 28)], start=1):
        image[(y - cy) ** 2 + (x - cx) ** 2 <= 25] = label
    return np.stack([image] * sections)


def assert_same_objects(fragments: np.ndarray, labels: np.ndarray) -> None:
    pairs = np.unique(np.stack([fragments.ravel(), labels.ravel().astype(np.uint64)]), axis=1)
    assert pairs.shape[1] == len(np.unique(fragments)) == len(np.unique(labels))
    assert pairs[:, 0].tolist() == [0, 0]


@pytest.mark.parametrize("settings", [MUTEX, {}], ids=["mutex_watershed", "watershed"])
def test_equal_images_in_a_stack_share_no_fragment(settings: dict[str, Any]) -> None:
    labels = discs()
    fragments = make_fragments(affinities_of(labels), OFFSETS, background_threshold=0.25, **settings)
    assert np.array_equal(fragments > 0, labels > 0)
    assert not set(np.unique(fragments[0])) & set(np.unique(fragments[1])) - {0}


def test_mutex_watershed_finds_objects_that_touch() -> None:
    labels = discs()
    fragments = make_fragments(affinities_of(labels), OFFSETS, background_threshold=0.25, **MUTEX)
    assert_same_objects(fragments, np.where(labels > 0, labels + 3 * np.arange(2)[:, None, None], 0))


def test_perfect_affinities_hold_objects_and_nothing_else() -> None:
    labels = discs(1)
    assert np.array_equal(mean_affinity_to_neighbours(affinities_of(labels)[:2]) > 0, labels > 0)


def test_objects_at_the_end_of_an_image_are_held_as_firmly() -> None:
    labels = np.ones((1, 6, 6), np.int64)
    assert mean_affinity_to_neighbours(affinities_of(labels)[:2]).min() == 1


def test_background_neither_attracts_nor_repels() -> None:
    """Fragments equal those of the whole image as far as they are foreground."""
    labels = discs(1)
    noisy = affinities_of(labels) * 0.8 + 0.15 * np.random.default_rng(0).random((4, *labels.shape), np.float32)
    background = labels == 0
    whole = mutex_watershed(noisy, OFFSETS, biases=[-0.5] * 4)
    whole[background] = 0
    restricted = mutex_fragments(noisy, OFFSETS, background, attraction_bias=-0.5, repulsion_bias=-0.5)
    assert_same_objects(restricted, np.unique(whole, return_inverse=True)[1].reshape(whole.shape))


def test_specks_join_the_object_beside_them_or_vanish() -> None:
    labels = discs(2)
    labels[0, 12, 10] = 9  # within an object
    labels[0, 2:4, 36:38] = 8  # alone, and below the least size
    labels[1, 30, 28] = 7
    fragments = make_fragments(affinities_of(labels), OFFSETS, background_threshold=0.2, minimum_size=5, **MUTEX)
    expected = np.where(labels > 6, 0, labels)
    expected[0, 12, 10], expected[1, 30, 28] = 0, 0  # no affinity holds a single voxel: background in an object
    assert_same_objects(fragments, np.where(expected > 0, expected + 3 * np.arange(2)[:, None, None], 0))
    cut = discs(1)
    cut[0, 12, 8:10] = 9  # two voxels hold each other
    cut_fragments = make_fragments(affinities_of(cut), OFFSETS, background_threshold=0.2, minimum_size=5, **MUTEX)
    assert_same_objects(cut_fragments, np.where(cut == 9, 1, cut))


@pytest.mark.parametrize("extent", [1, 3])
def test_offsets_longer_than_the_block_do_no_harm(extent: int) -> None:
    """Edge blocks may be narrower than the longest offset."""
    affinities = np.ones((4, 1, extent, 12), np.float32)
    assert len(np.unique(mutex_watershed(affinities, OFFSETS))) == 1
    single = mutex_watershed(np.ones((4, 3, 1, 1), np.float32), OFFSETS)
    assert np.array_equal(single.ravel(), [1, 2, 3])


def test_a_volume_without_background_is_fragmented_as_ever() -> None:
    offsets = ((-1, 0, 0), *OFFSETS)
    affinities = np.random.default_rng(0).random((5, 4, 12, 12), np.float32)
    assert np.array_equal(
        make_fragments(affinities, offsets, method="mutex_watershed"), mutex_watershed(affinities, offsets)
    )
