from __future__ import annotations

import numpy as np
import pytest

from pipeline.segmentation import seeded_watershed


def two_rooms(shape: tuple[int, int, int] = (12, 12, 25), wall: int = 12, axis: int = 2) -> np.ndarray:
    """Certain affinities everywhere but for a wall one voxel thick."""
    affinities = np.ones((3, *shape), np.float32)
    index: list[slice | int] = [slice(None)] * 4
    index[axis + 1] = wall
    affinities[tuple(index)] = 0
    return affinities


def noise(shape: tuple[int, int, int] = (16, 24, 24), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((3, *shape), np.float32)


def test_a_wall_separates_two_fragments() -> None:
    fragments = seeded_watershed(two_rooms())
    assert fragments.dtype == np.uint64
    assert fragments.shape == (12, 12, 25)
    assert len(np.unique(fragments[..., :12])) == 1
    assert len(np.unique(fragments[..., 13:])) == 1
    assert fragments[0, 0, 0] != fragments[0, 0, -1]


def test_ids_are_contiguous_and_cover_every_voxel() -> None:
    fragments = seeded_watershed(noise(), seed_distance=2)
    assert fragments.max() > 10
    assert np.array_equal(np.unique(fragments), np.arange(1, fragments.max() + 1))


def test_the_same_input_gives_the_same_ids() -> None:
    assert np.array_equal(seeded_watershed(noise()), seeded_watershed(noise().copy()))


def test_bytes_and_floats_mean_the_same() -> None:
    stored = np.round(noise() * 255).astype(np.uint8)
    as_float = stored.astype(np.float32) / np.float32(255)
    assert np.array_equal(seeded_watershed(stored, seed_distance=2), seeded_watershed(as_float, seed_distance=2))


def test_the_input_is_not_changed() -> None:
    affinities = noise()
    seeded_watershed(affinities, minimum_affinity=0.5, minimum_size=20)
    assert np.array_equal(affinities, noise())


def test_a_block_without_boundary_is_one_fragment() -> None:
    assert np.array_equal(np.unique(seeded_watershed(np.ones((3, 4, 5, 6), np.float32))), [1])


def test_a_block_that_is_all_boundary_has_no_fragments() -> None:
    assert not seeded_watershed(np.zeros((3, 4, 5, 6), np.float32)).any()


@pytest.mark.parametrize("in_plane", [False, True])
def test_blocks_of_one_voxel_and_of_none(in_plane: bool) -> None:
    assert seeded_watershed(np.ones((3, 1, 1, 1), np.float32), in_plane=in_plane).tolist() == [[[1]]]
    assert seeded_watershed(np.zeros((3, 0, 4, 4), np.float32), in_plane=in_plane).shape == (0, 4, 4)


@pytest.mark.parametrize("shape", [(1, 20, 20), (20, 1, 20), (20, 20, 1)])
def test_edge_blocks_one_voxel_wide(shape: tuple[int, int, int]) -> None:
    fragments = seeded_watershed(noise(shape), seed_distance=2)
    assert fragments.shape == shape
    assert fragments.min() == 1


def test_in_plane_fragments_never_leave_their_section() -> None:
    fragments = seeded_watershed(noise(), in_plane=True, seed_distance=2)
    sections = [set(np.unique(section)) for section in fragments]
    assert sum(map(len, sections)) == len(set().union(*sections)) == fragments.max()


def test_in_plane_ignores_the_affinity_between_sections() -> None:
    affinities = noise()
    torn = affinities.copy()
    torn[0] = 0
    assert np.array_equal(seeded_watershed(affinities, in_plane=True), seeded_watershed(torn, in_plane=True))


def test_only_the_ratios_of_the_voxel_size_matter() -> None:
    coarse = seeded_watershed(noise(), voxel_size=(50, 4, 4), seed_distance=3)
    assert np.array_equal(coarse, seeded_watershed(noise(), voxel_size=(12.5, 1, 1), seed_distance=3))
    assert not np.array_equal(coarse, seeded_watershed(noise(), seed_distance=3))


def test_thick_sections_keep_cells_that_are_few_voxels_deep() -> None:
    stacked = two_rooms((7, 20, 20), wall=3, axis=0)
    fragments = seeded_watershed(stacked, voxel_size=(10, 1, 1), seed_distance=8)
    assert fragments[0, 10, 10] != fragments[6, 10, 10]


def test_uncertain_fragments_are_removed_and_ids_stay_contiguous() -> None:
    affinities = two_rooms()
    affinities[..., 13:] = 0.6
    fragments = seeded_watershed(affinities, minimum_affinity=0.8)
    assert (fragments[..., :12] == 1).all()
    assert not fragments[..., 13:].any()


def test_small_fragments_go_to_their_neighbours() -> None:
    fragments = seeded_watershed(noise(), seed_distance=2)
    assert np.bincount(fragments.ravel().astype(int))[1:].min() < 40
    merged = seeded_watershed(noise(), seed_distance=2, minimum_size=40)
    assert np.bincount(merged.ravel().astype(int))[1:].min() >= 40
    assert merged.min() == 1


def test_if_all_fragments_are_small_they_stay() -> None:
    assert seeded_watershed(two_rooms(), minimum_size=10**6).max() == 2


@pytest.mark.parametrize(
    "affinities",
    [np.ones((2, 3, 3, 3), np.float32), np.ones((3, 3, 3), np.float32), np.ones((3, 3, 3, 3), np.int32)],
)
def test_affinities_of_another_kind_are_refused(affinities: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"affinities|affinity"):
        seeded_watershed(affinities)


def affinities_of(labels: np.ndarray) -> np.ndarray:
    """Perfect affinities, (3, z, y, x) uint8; 0 holds to nothing."""
    affinities = np.full((3, *labels.shape), 255, np.uint8)
    for axis, channel in enumerate(affinities):
        behind = np.moveaxis(labels, axis, 0)[1:]
        before = np.moveaxis(labels, axis, 0)[:-1]
        np.moveaxis(channel, axis, 0)[1:] = 255 * ((behind == before) & (behind > 0))
    affinities[:, labels == 0] = 0
    return affinities


def assert_each_fragment_is_in_one_label(fragments: np.ndarray, labels: np.ndarray) -> None:
    inside = labels > 0
    pairs = np.unique(np.stack([fragments[inside], labels[inside].astype(np.uint64)]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("boundary_threshold", [0.5, 0.6, 0.7])
def test_a_flat_contact_without_a_membrane_is_seen(axis: int, boundary_threshold: float) -> None:
    """One affinity of three is 0 there: their mean is 2/3."""
    labels = np.ones((14, 14, 14), np.uint8)
    np.moveaxis(labels, axis, 0)[7:] = 2
    fragments = seeded_watershed(affinities_of(labels), boundary_threshold=boundary_threshold)
    assert_each_fragment_is_in_one_label(fragments, labels)
    assert fragments.min() == 1


@pytest.mark.parametrize("thickness", [1, 2, 3])
def test_thin_processes_between_thick_neurites_keep_their_voxels(thickness: int) -> None:
    labels = np.ones((20, 24, 24), np.uint8)
    labels[:, 12:] = 2
    labels[:, 12 : 12 + thickness, 10 : 10 + thickness] = 3
    fragments = seeded_watershed(affinities_of(labels), seed_distance=5)
    assert_each_fragment_is_in_one_label(fragments, labels)


def test_a_process_that_is_thick_elsewhere_needs_no_seed_where_it_is_thin() -> None:
    labels = np.ones((20, 30, 30), np.uint8)
    labels[5:15, 10:20, 20:30] = 2
    labels[10, 15, :20] = 2
    fragments = seeded_watershed(affinities_of(labels), seed_distance=5)
    assert_each_fragment_is_in_one_label(fragments, labels)
    assert fragments[10, 15, 0] == fragments[10, 15, 25]


def test_a_cut_between_neurites_is_shared_by_both() -> None:
    """The thicker one must not take it all, only because its middle is farther from boundaries."""
    truth = np.ones((24, 24, 40), np.uint8)
    truth[..., 30:] = 2
    cut = truth.copy()
    cut[..., 29:31] = 0
    fragments = seeded_watershed(affinities_of(cut))
    assert_each_fragment_is_in_one_label(fragments, truth)


def test_a_cut_of_anisotropic_voxels_is_shared_within_the_section() -> None:
    truth = np.ones((3, 20, 20), np.uint8)
    truth[1, :, 8:] = 2
    truth[2] = 2
    cut = truth.copy()
    cut[1, :, 6:10] = 0
    fragments = seeded_watershed(affinities_of(cut), voxel_size=(10, 1, 1))
    assert_each_fragment_is_in_one_label(fragments, truth)


def test_without_faces_only_the_mean_of_a_voxel_counts() -> None:
    labels = np.ones((14, 14, 14), np.uint8)
    labels[..., 7:] = 2
    assert seeded_watershed(affinities_of(labels), face_threshold=0).max() == 1
