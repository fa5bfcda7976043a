"""Colours that mislead are worse than none."""

from __future__ import annotations

import numpy as np

from pipeline.viewer.overlays import affinity_colours, grey, matching_colours, object_colours, overlay, stretch


def test_colours_depend_on_the_id_alone_and_differ() -> None:
    ids = np.array([[0, 1, 2], [2**63, 2**63 + 1, 2]], np.uint64)
    colours = object_colours(ids)
    assert sorted(colours) == [1, 2, 2**63, 2**63 + 1]
    np.testing.assert_array_equal(object_colours(np.array([2], np.uint64))[2], colours[2])
    assert len({tuple(np.round(colour, 3)) for colour in colours.values()}) == 4


def test_a_split_shows_in_two_colours_and_a_merge_in_one() -> None:
    labels = np.array([[1, 1, 1, 1, 2, 2, 3, 3, 3]], np.uint64)
    segments = np.array([[7, 7, 7, 8, 9, 9, 9, 9, 9]], np.uint64)
    colours, truth = matching_colours(segments, labels), object_colours(labels)
    np.testing.assert_array_equal(colours[7], truth[1])
    np.testing.assert_array_equal(colours[9], truth[3])
    assert not np.array_equal(colours[8], truth[1])


def test_background_stays_uncovered() -> None:
    background = np.full((4, 4, 3), 0.5)
    ids = np.zeros((4, 4), np.uint64)
    np.testing.assert_array_equal(overlay(background, ids, {}), background)
    ids[:2] = 5
    picture = overlay(background, ids, {5: np.array([1.0, 0, 0])})
    np.testing.assert_array_equal(picture[2:], background[2:])
    assert (picture[:2, :, 0] > picture[:2, :, 1]).all()


def test_flat_intensities_do_not_divide_by_zero() -> None:
    assert np.isfinite(grey(np.full((3, 3), 7, np.uint8))).all()
    assert grey(np.array([[0, 1000, 65535]], np.uint16)).max() == 1


def test_affinities_beyond_the_third_channel_are_left_out() -> None:
    affinities = np.zeros((5, 2, 2), np.uint8)
    affinities[0] = 255
    np.testing.assert_array_equal(affinity_colours(affinities)[0, 0], [1, 0, 0])


def test_stretching_repeats_pixels_evenly() -> None:
    image = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(stretch(image, (2, 1)), np.repeat(image, 2, axis=0))
    assert stretch(image, (5.0, 1.25)).shape == (10, 4)
    assert set(stretch(np.arange(100)[:, None], (1.3, 1)).ravel()) == set(range(100))
