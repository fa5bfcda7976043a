from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.segmentation.faces import connected_parts, open_faces

SHAPE = (6, 9, 11)


def noise(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((channels, *SHAPE), np.float32)


@pytest.mark.parametrize("channels", [2, 3])
def test_parts_are_those_of_the_graph_of_confident_affinities(channels: int) -> None:
    affinities = noise(channels)
    ids = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    pairs = []
    for channel, axis in zip(affinities, range(3 - channels, 3), strict=True):
        held = np.moveaxis(channel, axis, 0)[1:] >= 0.8
        pairs.append(np.stack([np.moveaxis(ids, axis, 0)[side][held] for side in (slice(1, None), slice(None, -1))]))
    first, second = np.concatenate(pairs, axis=1)
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(ids.size, ids.size))
    number, expected = connected_components(graph, directed=False)
    parts = connected_parts(open_faces(affinities, 0.8))
    assert parts.min() == 1
    assert parts.max() == number
    assert len(np.unique(np.stack([parts.ravel(), expected]), axis=1).T) == number


def test_bytes_and_floats_open_the_same_faces() -> None:
    stored = np.round(noise() * 255).astype(np.uint8)
    as_float = stored.astype(np.float32) / np.float32(255)
    for threshold in (0.2, 0.5, 0.6):
        np.testing.assert_array_equal(open_faces(stored, threshold), open_faces(as_float, threshold))
