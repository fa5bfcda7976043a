"""Smooth noise: hashed values on a lattice, interpolated by cubic B-splines.

Interpolation uses additions and multiplications only, always in the same order, so that a voxel gets the same bits
whatever block it is computed in. The result is a weighted mean of values in [-1, 1) and therefore bounded by 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import hashing


def spline_weights(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of four lattice points around each position, and their weights.

    Args:
        position: (n,) float64, in units of the lattice.

    Returns:
        index: (n,) int64, the first lattice point.
        weights: (4, n) float64, summing to 1.
    """
    floor = np.floor(position)
    t = position - floor
    weights = np.stack(
        [
            (1 - t) * (1 - t) * (1 - t),
            3 * t * t * t - 6 * t * t + 4,
            -3 * t * t * t + 3 * t * t + 3 * t + 1,
            t * t * t,
        ]
    )
    return floor.astype(np.int64) - 1, weights / 6.0


def smooth_noise(seed: int, stream: int, positions: Sequence[np.ndarray], pitch: Sequence[float]) -> np.ndarray:
    """Smooth noise on the grid that three axes of positions span.

    Args:
        seed, stream: see `hashing`.
        positions: nanometres along z, y and x; ascending float64 arrays.
        pitch: distance of the lattice points along z, y and x in nanometres.

    Returns:
        (z, y, x) float32 in [-1, 1].
    """
    spans = [spline_weights(position / distance) for position, distance in zip(positions, pitch, strict=True)]
    firsts = [int(index.min()) for index, _ in spans]
    counts = [int(index.max()) + len(weights) - first for (index, weights), first in zip(spans, firsts, strict=True)]
    axes = [np.arange(first, first + count) for first, count in zip(firsts, counts, strict=True)]
    values = hashing.symmetric(seed, stream, axes[0][:, None, None], axes[1][:, None], axes[2]).astype(np.float32)
    for axis, ((index, weights), first) in enumerate(zip(spans, firsts, strict=True)):
        values = _interpolate(values, axis, index - first, weights.astype(np.float32))
    return values


def smooth_paths(
    seed: int, stream: int, paths: Sequence[np.ndarray], positions: np.ndarray, pitch: float
) -> np.ndarray:
    """One-dimensional smooth noise along z, a separate one for each path.

    Args:
        seed, stream: see `hashing`.
        paths: integer coordinates that tell the paths apart; each (n,).
        positions: (z,) float64 in nanometres.
        pitch: distance of the lattice points in nanometres.

    Returns:
        (z, n) float64 in [-1, 1].
    """
    index, weights = spline_weights(positions / pitch)
    points = np.arange(index.min(), index.max() + 4)
    values = hashing.symmetric(seed, stream, *paths, points[:, None])
    result: np.ndarray = sum(weights[k][:, None] * values[index - points[0] + k] for k in range(4))
    return result


def _interpolate(values: np.ndarray, axis: int, index: np.ndarray, weights: np.ndarray) -> np.ndarray:
    shape = [1] * values.ndim
    shape[axis] = -1
    result = np.take(values, index, axis=axis)
    result *= weights[0].reshape(shape)
    for k in range(1, len(weights)):
        term = np.take(values, index + k, axis=axis)
        term *= weights[k].reshape(shape)
        result += term
    return result
