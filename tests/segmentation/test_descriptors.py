"""Local shape descriptors against the published definition, voxel by voxel, and in parts as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.segmentation import descriptor_reach, local_shape_descriptors


def blobs(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """A partition with background, and ids that are neither small nor consecutive."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, shape, size=(12, 3))
    voxels = np.stack(np.meshgrid(*(np.arange(extent) for extent in shape), indexing="ij"), axis=-1)
    nearest = np.linalg.norm(voxels[..., None, :] - seeds, axis=-1).argmin(-1)
    ids = np.array([0, 2**63 + 5, 7, 8, 3, 2**40, 11, 900, 12, 0, 14, 15], np.uint64)
    labels: np.ndarray = ids[nearest]
    labels[rng.random(shape) < 0.03] = 0
    return labels


def by_definition(
    labels: np.ndarray, sigma: Sequence[float], voxel: tuple[int, ...], axes: Sequence[int]
) -> np.ndarray:
    """Sheridan et al.: all voxels of the object in the neighbourhood, their weighted mean and covariance."""
    reach = [int(3 * deviation + 0.5) if axis in axes else 0 for axis, deviation in enumerate(sigma)]
    inside, every = [], 0.0
    for offset in itertools.product(*(range(-r, r + 1) for r in reach)):
        weight = float(np.exp(-sum((offset[axis] / sigma[axis]) ** 2 for axis in axes) / 2))
        every += weight
        there = tuple(v + o for v, o in zip(voxel, offset, strict=True))
        if (
            all(0 <= t < extent for t, extent in zip(there, labels.shape, strict=True))
            and labels[there] == labels[voxel]
        ):
            inside.append((weight, [offset[axis] for axis in axes]))
    weights, offsets = np.array([w for w, _ in inside]), np.array([o for _, o in inside], float)
    width = np.array([sigma[axis] for axis in axes])
    covariance = np.cov(offsets.T, aweights=weights, ddof=0) if len(offsets) > 1 else np.zeros((len(axes),) * 2)
    spread = np.sqrt(np.diag(covariance))
    pairs = list(itertools.combinations(range(len(axes)), 2))
    correlation = [covariance[a, b] / (spread[a] * spread[b]) if spread[a] * spread[b] > 0 else 0 for a, b in pairs]
    mean = np.average(offsets, axis=0, weights=weights)
    described = [*(0.5 + mean / width / 2), *(spread**2 / width**2), *(0.5 + np.array(correlation) / 2)]
    clipped: np.ndarray = np.clip([*described, weights.sum() / every], 0, 1)
    return clipped


@pytest.mark.parametrize(
    ("in_plane", "sigma"), [(False, (0.8, 2.0, 1.7)), (False, (2.5, 2.5, 2.5)), (True, (9, 2.0, 1.5))]
)
def test_every_channel_follows_the_published_definition(in_plane: bool, sigma: tuple[float, float, float]) -> None:
    labels = blobs((7, 13, 12))
    found = local_shape_descriptors(labels, sigma, in_plane=in_plane)
    assert found.shape == (6 if in_plane else 10, *labels.shape) and found.dtype == np.float32
    axes = (1, 2) if in_plane else (0, 1, 2)
    for voxel in np.argwhere(labels > 0)[::7]:
        expected = by_definition(labels, sigma, tuple(voxel), axes)
        np.testing.assert_allclose(found[(slice(None), *voxel)], expected, atol=2e-5, err_msg=str(voxel))
    assert not found[:, labels == 0].any()


@pytest.mark.parametrize("in_plane", [False, True])
def test_a_part_with_its_surroundings_has_the_descriptors_of_the_whole(in_plane: bool) -> None:
    labels, sigma = blobs((20, 90, 80), seed=1), (1.2, 3.0, 3.0)
    whole = local_shape_descriptors(labels, sigma, in_plane=in_plane)
    reach = descriptor_reach(sigma, in_plane)
    for begin, end in (((8, 20, 30), (9, 60, 33)), ((0, 0, 0), (20, 40, 41)), ((5, 47, 1), (16, 90, 80))):
        low = [max(0, b - r) for b, r in zip(begin, reach, strict=True)]
        high = [min(extent, e + r) for e, r, extent in zip(end, reach, labels.shape, strict=True)]
        around = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        z, y, x = (slice(b - a, e - a) for a, b, e in zip(low, begin, end, strict=True))
        part = local_shape_descriptors(around, sigma, (z, y, x), in_plane=in_plane)
        expected = whole[(slice(None), *(slice(b, e) for b, e in zip(begin, end, strict=True)))]
        np.testing.assert_allclose(part, expected, atol=2e-6)


def test_without_objects_there_is_nothing_to_describe() -> None:
    assert not local_shape_descriptors(np.zeros((3, 5, 5), np.uint64), (1, 2, 2)).any()
