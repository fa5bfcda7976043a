"""Pictures of a sample for TensorBoard: raw | target affinities | predicted affinities | embedding."""

from __future__ import annotations

import numpy as np

GAP = 4
"""Voxels between the panels."""


def sample_picture(raw: np.ndarray, targets: np.ndarray, affinities: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """One section of a sample as four panels side by side.

    Args:
        raw: (z, y, x) float32 in [-1, 1].
        targets: (k, z, y, x) in [0, 1]; the first three channels become red, green and blue.
        affinities: (k, z, y, x) in [0, 1], predicted.
        embedding: (d, z, y, x) float32; its three principal components become red, green and blue.

    Returns:
        (y, width, 3) uint8.
    """
    middle = raw.shape[0] // 2
    grey = np.repeat(raw[middle][..., None] / 2 + 0.5, 3, axis=-1)
    panels = [
        grey,
        _colours(targets[:3, middle]),
        _colours(affinities[:3, middle]),
        principal_colours(embedding[:, middle]),
    ]
    gap = np.ones((grey.shape[0], GAP, 3))
    strip = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    result: np.ndarray = np.rint(np.clip(strip, 0, 1) * 255).astype(np.uint8)
    return result


def principal_colours(embedding: np.ndarray) -> np.ndarray:
    """The first three principal components of unit-length embeddings, (d, y, x) to (y, x, 3) in [0, 1]."""
    flat = embedding.reshape(embedding.shape[0], -1).astype(np.float64)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=0, keepdims=True), 1e-12)
    flat = flat - flat.mean(axis=1, keepdims=True)
    _, directions = np.linalg.eigh(flat @ flat.T)
    components = directions[:, ::-1][:, :3].T @ flat
    low, high = np.percentile(components, (1, 99), axis=1)
    scaled = np.clip((components - low[:, None]) / np.maximum(high - low, 1e-12)[:, None], 0, 1)
    return _colours(scaled.reshape(-1, *embedding.shape[1:]))


def _colours(channels: np.ndarray) -> np.ndarray:
    """Up to three channels (c, y, x) as (y, x, 3); missing ones are black."""
    colours = np.zeros((*channels.shape[1:], 3))
    for index, channel in enumerate(channels):
        colours[..., index] = channel
    return colours
