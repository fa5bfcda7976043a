"""Targets in closed form."""

from __future__ import annotations

import numpy as np

from pipeline.distillation import affinity_targets, erode_boundaries

OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 3))


def halves() -> np.ndarray:
    """Neurite 1 left of x = 4, neurite 2 from there on."""
    labels = np.ones((3, 4, 8), dtype=np.uint64)
    labels[:, :, 4:] = 2
    return labels


def targets(labels: np.ndarray, annotated: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    return affinity_targets(labels, np.ones(labels.shape, bool) if annotated is None else annotated, OFFSETS)


def test_affinity_channel_k_at_p_belongs_to_p_and_p_plus_offset() -> None:
    affinities, _ = targets(halves())
    assert affinities[0, 1:].all() and not affinities[0, 0].any()
    assert affinities[1, :, 1:].all() and not affinities[1, :, 0].any()
    np.testing.assert_array_equal(affinities[2, 0, 0], [0, 1, 1, 1, 0, 1, 1, 1])
    np.testing.assert_array_equal(affinities[3, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0])


def test_long_offsets_are_not_ignored_and_do_not_wrap_around() -> None:
    _, mask = targets(halves())
    assert mask[0, 1:].all() and not mask[0, 0].any()
    np.testing.assert_array_equal(mask[3, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0])


def test_an_offset_longer_than_the_patch_has_no_pairs() -> None:
    affinities, mask = affinity_targets(halves(), np.ones((3, 4, 8), bool), [(-5, 0, 0), (0, 0, 20)])
    assert not affinities.any() and not mask.any()


def test_background_has_no_affinity_to_background() -> None:
    labels = halves()
    labels[:] = 0
    affinities, mask = targets(labels)
    assert not affinities.any()
    assert mask[0, 1:].all()


def test_pairs_with_an_unannotated_voxel_are_masked_on_both_sides() -> None:
    annotated = np.ones((3, 4, 8), bool)
    annotated[1, 1, 2] = False
    affinities, mask = targets(halves(), annotated)
    assert mask[2, 1, 1, 2] == 0 and mask[2, 1, 1, 3] == 0 and mask[2, 1, 1, 4] == 1
    assert affinities[2, 1, 1, 3] == 0


def test_erosion_cuts_as_wide_as_asked_to_each_side() -> None:
    for erosion in (0, 1, 2, 3):
        expected = [1] * (4 - erosion) + [0] * (2 * erosion) + [2] * (4 - erosion)
        np.testing.assert_array_equal(erode_boundaries(halves(), erosion)[1, 2], expected)


def test_erosion_leaves_neurites_beside_background_alone() -> None:
    labels = halves()
    labels[:, :, 3:5] = 0
    np.testing.assert_array_equal(erode_boundaries(labels, 2), labels)


def test_erosion_in_plane_leaves_contacts_between_sections_alone() -> None:
    labels = np.ones((4, 5, 5), dtype=np.uint64)
    labels[2:] = 2
    np.testing.assert_array_equal(erode_boundaries(labels, 1, in_plane=True), labels)
    assert (erode_boundaries(labels, 1)[1:3] == 0).all()


def test_unannotated_voxels_are_no_neighbour_to_be_cut_from() -> None:
    labels = halves()
    np.testing.assert_array_equal(erode_boundaries(labels, 1, unlabelled_id=2), labels)


def test_erosion_does_not_touch_its_input() -> None:
    labels = halves()
    erode_boundaries(labels, 1)
    np.testing.assert_array_equal(labels, halves())
