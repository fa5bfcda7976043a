"""Levels of a pyramid: which axes are joined, and what several voxels become; against plain loops."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.volumes.pyramids import downsample, level_factors


def voxel_by_voxel(data: np.ndarray, factors: tuple[int, ...], join: Callable[[np.ndarray], object]) -> np.ndarray:
    """What `downsample` promises, a box at a time."""
    shape = [-(-extent // factor) for extent, factor in zip(data.shape, factors, strict=True)]
    result = np.empty(shape, data.dtype)
    for place in itertools.product(*map(range, shape)):
        box = tuple(slice(p * f, (p + 1) * f) for p, f in zip(place, factors, strict=True))
        result[place] = join(data[box])
    return result


def majority(voxels: np.ndarray) -> int:
    """Most frequent, then smallest, 0 last."""
    counts = Counter(voxels.ravel().tolist())
    return int(min(counts, key=lambda value: (-counts[value], value == 0, value)))


@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 2, 2), (2, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("dtype", ["uint64", "int64", "uint8"])
def test_majority_is_that_of_plain_loops_and_invents_no_id(factors: tuple[int, ...], dtype: str) -> None:
    ids = np.array([0, 1, 3, 200 if dtype == "uint8" else 2**62 + 1], dtype)
    data = ids[np.random.default_rng(4).integers(0, 4, (7, 9, 10))]
    result = downsample(data, factors, "majority")
    assert result.dtype == data.dtype
    np.testing.assert_array_equal(result, voxel_by_voxel(data, factors, majority))


def test_of_equally_frequent_ids_the_smallest_wins_and_nothing_the_least() -> None:
    assert downsample(np.array([[[7, 7, 3, 3]]], np.uint64), (1, 1, 4), "majority").item() == 3
    assert downsample(np.array([[[0, 0, 9, 9]]], np.uint64), (1, 1, 4), "majority").item() == 9
    assert downsample(np.array([[[0, 0, 0, 9]]], np.uint64), (1, 1, 4), "majority").item() == 0


@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int8", "int16"])
def test_means_of_whole_numbers_are_rounded_to_the_nearest(factors: tuple[int, ...], dtype: str) -> None:
    low, high = (-100, 100) if dtype.startswith("int") else (0, 200)
    data = np.random.default_rng(5).integers(low, high, (5, 7, 8)).astype(dtype)
    expected = voxel_by_voxel(data, factors, lambda voxels: np.rint(voxels.mean()))
    np.testing.assert_array_equal(downsample(data, factors, "mean"), expected)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_means_of_fractions(dtype: str) -> None:
    data = np.random.default_rng(6).normal(size=(5, 7, 8)).astype(dtype)
    expected = voxel_by_voxel(data, (2, 2, 2), lambda voxels: voxels.astype(np.float64).mean())
    np.testing.assert_allclose(downsample(data, (2, 2, 2), "mean"), expected, atol=2e-3 if dtype == "float16" else 1e-6)


def test_a_channel_axis_is_kept() -> None:
    data = np.random.default_rng(7).integers(0, 200, (3, 4, 6, 6)).astype(np.uint8)
    joined = downsample(data, (2, 2, 2), "mean")
    np.testing.assert_array_equal(joined, np.stack([downsample(channel, (2, 2, 2), "mean") for channel in data]))


def test_levels_make_voxels_more_isotropic_and_end_small() -> None:
    def levels(size: tuple[float, ...], shape: tuple[int, ...], smallest: int = 64) -> list[tuple[int, ...]]:
        return [tuple(factors) for factors in level_factors(size, shape, smallest)]

    assert levels((40, 4, 4), (1000, 9000, 9000))[:4] == [(1, 2, 2), (1, 4, 4), (1, 8, 8), (2, 16, 16)]
    assert levels((3.58, 3.58, 3.58), (200, 200, 200)) == [(2, 2, 2), (4, 4, 4)]
    assert levels((8, 5.24, 5.24), (128, 512, 512)) == [(1, 2, 2), (2, 4, 4), (4, 8, 8)], "8 / 5.24 is more than 1.41"
    assert levels((7.4, 5.24, 5.24), (65, 65, 65)) == [(2, 2, 2)], "7.4 / 5.24 is less"
    assert levels((8, 8, 8), (64, 64, 64)) == []
    assert levels((40, 8, 8), (1, 100, 100)) == [(1, 2, 2)], "a single section is not joined with nothing"
    for factors in level_factors((30, 4, 8), (999, 20001, 7001), 64):
        voxel = [s * f for s, f in zip((30, 4, 8), factors, strict=True)]
        assert max(voxel) / min(voxel) <= 30 / 4


def test_sections_of_separate_images_are_never_joined() -> None:
    factors = level_factors((1, 1, 1), (500, 300, 300), 64, keep_sections=True)
    assert [tuple(f) for f in factors] == [(1, 2**level, 2**level) for level in range(1, 4)]
