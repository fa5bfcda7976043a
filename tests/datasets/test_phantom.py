"""The phantom must be reproducible, independent of blocks, and made of real three-dimensional objects."""

from __future__ import annotations

import itertools
from typing import Any

import cc3d
import numpy as np
import pytest
from funlib.geometry import Coordinate

from pipeline.config import PhantomSource
from pipeline.datasets import Phantom
from pipeline.volumes import Box

SHAPE = (16, 96, 100)


def whole(**fields: Any) -> dict[str, np.ndarray]:
    source = PhantomSource(shape=SHAPE, **fields)
    return Phantom(source).compute(Box.of_shape(SHAPE))


@pytest.mark.parametrize("voxel_size", [(40, 8, 8), (10, 10, 10)])
@pytest.mark.parametrize("block", [(1, 1, 100), (5, 31, 64), (16, 96, 1), (7, 17, 23)])
def test_a_voxel_does_not_depend_on_the_block_it_is_computed_in(
    voxel_size: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    expected = whole(voxel_size=voxel_size, seed=5)
    phantom = Phantom(PhantomSource(shape=SHAPE, voxel_size=voxel_size, seed=5))
    starts = [range(0, extent, step) for extent, step in zip(SHAPE, block, strict=True)]
    corners = list(itertools.product(*starts))
    for begin in [*corners[:: max(1, len(corners) // 12)], corners[-1]]:
        box = Box.of_shape(SHAPE).intersect(Box(Coordinate(begin), Coordinate(begin) + Coordinate(block)))
        for dataset, data in phantom.compute(box).items():
            np.testing.assert_array_equal(data, expected[dataset][box.slices])


def test_block_shape_of_the_config_does_not_change_the_phantom() -> None:
    source = PhantomSource(shape=SHAPE, block_shape=(5, 40, 33))
    read = Phantom(source).read(Box.of_shape(SHAPE))
    np.testing.assert_array_equal(read["raw"], whole()["raw"])
    np.testing.assert_array_equal(read["labels"], whole()["labels"])


def test_another_seed_gives_another_volume() -> None:
    assert (whole(seed=1)["labels"] != whole(seed=2)["labels"]).mean() > 0.5
    assert (whole(seed=1)["raw"] != whole(seed=2)["raw"]).mean() > 0.5


def test_every_voxel_belongs_to_a_neurite() -> None:
    labels = whole()["labels"]
    assert labels.dtype == np.uint64
    assert labels.min() >= 1
    assert len(np.unique(labels)) > 8


@pytest.mark.parametrize("voxel_size", [(40, 8, 8), (10, 10, 10)])
def test_neurites_are_connected_in_three_dimensions(voxel_size: tuple[int, int, int]) -> None:
    """Apart from crumbs where a neurite leaves the volume and comes back."""
    shape = (40, 128, 128)
    labels = Phantom(PhantomSource(shape=shape, voxel_size=voxel_size, seed=3)).compute(Box.of_shape(shape))["labels"]
    components = cc3d.connected_components(labels.astype(np.uint32), connectivity=6)
    _, first, sizes = np.unique(components, return_index=True, return_counts=True)
    largest = np.zeros(int(labels.max()) + 1, np.int64)
    np.maximum.at(largest, labels.ravel()[first], sizes)
    assert largest.sum() / labels.size > 0.97


def test_neurites_move_less_than_their_width_between_sections() -> None:
    labels = whole()["labels"]
    changed = (labels[1:] != labels[:-1]).mean()
    assert 0.01 < changed < 0.2


def test_membranes_are_darker_than_cytoplasm() -> None:
    volume = whole(noise=0.0, dark_sections=0.0)
    labels, raw = volume["labels"][:, :, 1:-1], volume["raw"][:, :, 1:-1]
    at_border = (volume["labels"][:, :, :-2] != labels) | (volume["labels"][:, :, 2:] != labels)
    assert raw[at_border].mean() < 0.6 * raw[~at_border].mean()


def test_missing_and_dark_sections_are_where_the_config_asks_for_them() -> None:
    missing = whole(missing_sections=1.0)
    assert missing["raw"].max() == 0
    assert missing["labels"].min() >= 1
    assert whole(dark_sections=1.0)["raw"].mean() < 0.8 * whole(dark_sections=0.0)["raw"].mean()


def test_negative_seeds_and_single_voxels_work() -> None:
    volume = Phantom(PhantomSource(shape=(1, 1, 1), seed=-3)).compute(Box.of_shape((1, 1, 1)))
    assert volume["raw"].shape == volume["labels"].shape == (1, 1, 1)
