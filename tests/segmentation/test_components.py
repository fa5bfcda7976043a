from __future__ import annotations

import cc3d
import numpy as np
import pytest

from pipeline.segmentation import connected_components, fragment_statistics, mutex_watershed, relabel


def test_nodes_join_along_edges_up_to_the_threshold() -> None:
    edges = np.array([[1, 2], [2, 3], [7, 3]])
    lut = connected_components(np.array([7, 1, 2, 3, 11]), edges, np.array([0.1, 0.3, 0.30001]), 0.3)
    assert lut.tolist() == [[1, 1], [2, 1], [3, 1], [7, 7], [11, 11]]


def test_no_nodes_at_all() -> None:
    assert connected_components(np.zeros(0), np.zeros((0, 2)), np.zeros(0), 0.5).shape == (0, 2)


@pytest.mark.parametrize("ids", [[3, 4, 5], [3, 5, 9], [2**60, 2**60 + 1], [7]])
def test_relabelling_replaces_listed_ids_and_clears_the_others(ids: list[int]) -> None:
    values = np.arange(100, 100 + len(ids), dtype=np.uint64)
    array = np.array([[0, 1, *ids], [*ids, 2**62, 2]], np.uint64)
    expected = [[0, 0, *values.tolist()], [*values.tolist(), 0, 0]]
    assert relabel(array, np.array(ids, np.uint64), values).tolist() == expected


def test_relabelling_with_an_empty_table_clears_everything() -> None:
    assert not relabel(np.arange(5), np.zeros(0, np.uint64), np.zeros(0, np.uint64)).any()


def test_relabelling_small_integer_arrays_does_not_wrap_around() -> None:
    array = np.array([1, 2, 255], np.uint8)
    assert relabel(array, np.array([2, 300], np.uint64), np.array([9, 8], np.uint64)).tolist() == [0, 9, 0]
    assert relabel(array, np.array([255, 256], np.uint64), np.array([9, 8], np.uint64)).tolist() == [0, 0, 9]


def test_fragment_statistics_worked_by_hand() -> None:
    fragments = np.zeros((3, 4, 5), np.uint64)
    fragments[0, 1, 1:4] = 10**12
    fragments[2, 0:2, 4] = 6
    statistics = fragment_statistics(fragments)
    assert statistics.id.tolist() == [6, 10**12]
    assert statistics.size.tolist() == [2, 3]
    assert statistics.centre.tolist() == [[2, 0.5, 4], [0, 1, 2]]
    assert statistics.begin.tolist() == [[2, 0, 4], [0, 1, 1]]
    assert statistics.end.tolist() == [[3, 2, 5], [1, 2, 4]]


@pytest.mark.parametrize("first", [1, 10**15])
def test_fragment_statistics_equal_those_of_cc3d_to_the_bit(first: int) -> None:
    parts = np.random.default_rng(0).integers(0, 9, (4, 6, 5)).repeat(3, 0).repeat(4, 1).repeat(7, 2)
    expected = cc3d.statistics(parts.astype(np.uint32))
    found = fragment_statistics(np.where(parts > 0, parts + first - 1, 0))
    assert found.id.tolist() == list(range(first, first + 8))
    np.testing.assert_array_equal(found.size, expected["voxel_counts"][1:])
    np.testing.assert_array_equal(found.centre, expected["centroids"][1:].astype(np.float64))
    boxes = [[(axis.start, axis.stop) for axis in box] for box in expected["bounding_boxes"][1:]]
    np.testing.assert_array_equal(np.stack([found.begin, found.end], axis=-1), boxes)


@pytest.mark.parametrize("shape", [(2, 2, 2), (0, 2, 2)])
def test_statistics_of_background_alone_are_empty(shape: tuple[int, int, int]) -> None:
    statistics = fragment_statistics(np.zeros(shape, np.uint64))
    assert statistics.id.shape == (0,)
    assert statistics.centre.shape == statistics.begin.shape == (0, 3)


def test_mutex_watershed_is_split_by_long_range_repulsion() -> None:
    offsets = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, -4))
    affinities = np.full((4, 3, 3, 12), 0.9, np.float32)
    affinities[2, ..., 6] = 0.4  # a weak membrane: alone not enough to stop nearest neighbours from joining
    affinities[3, ..., 6:10] = 0.0
    fragments = mutex_watershed(affinities, offsets)
    assert fragments.dtype == np.uint64
    assert np.unique(fragments[..., :6]).tolist() == [1]
    assert np.unique(fragments[..., 6:]).tolist() == [2]
    stored = np.round(affinities * 255).astype(np.uint8)
    assert np.array_equal(mutex_watershed(stored, offsets), fragments)
    assert mutex_watershed(affinities[:3], offsets[:3], biases=[-0.2] * 3).max() == 1


def test_mutex_watershed_wants_one_bias_per_channel() -> None:
    with pytest.raises(ValueError, match="2 biases"):
        mutex_watershed(np.ones((3, 2, 2, 2), np.float32), ((-1, 0, 0), (0, -1, 0), (0, 0, -1)), biases=[0, 0])
