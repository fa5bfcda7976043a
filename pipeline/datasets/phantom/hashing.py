"""Random numbers that are a pure function of a seed and integer coordinates.

A stream of random numbers depends on the order in which it is drawn; a hash does not. Every random quantity of the
phantom is hashed from where it lies, so that any block of any size can be computed alone.
"""

from __future__ import annotations

import numpy as np

from ...hashing import GOLDEN, splitmix64


def hash_coordinates(seed: int, stream: int, *coordinates: np.ndarray) -> np.ndarray:
    """A 64-bit hash of integer coordinates that broadcast against each other.

    Args:
        seed: the user's seed.
        stream: separates quantities that are drawn at the same place.
        coordinates: integer arrays; negative values are fine.

    Returns:
        uint64 array of the broadcast shape.
    """
    state = splitmix64(np.full(1, (seed * 0x1_0001 + stream + 1) % 2**64, dtype=np.uint64) * GOLDEN)
    for coordinate in coordinates:
        state = splitmix64(state ^ (np.asarray(coordinate, dtype=np.int64).view(np.uint64) + np.uint64(1)) * GOLDEN)
    return state


def uniform(seed: int, stream: int, *coordinates: np.ndarray) -> np.ndarray:
    """Uniform float64 numbers in [0, 1), one for each coordinate."""
    return (hash_coordinates(seed, stream, *coordinates) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def symmetric(seed: int, stream: int, *coordinates: np.ndarray) -> np.ndarray:
    """Uniform float64 numbers in [-1, 1), one for each coordinate."""
    return 2.0 * uniform(seed, stream, *coordinates) - 1.0


def gaussian(seed: int, stream: int, *coordinates: np.ndarray) -> np.ndarray:
    """Nearly Gaussian float32 numbers of mean 0 and standard deviation 1: the sum of four uniform ones."""
    hashed = hash_coordinates(seed, stream, *coordinates)
    total = (hashed & np.uint64(0xFFFF)).astype(np.int32)
    for shift in (16, 32, 48):
        total += ((hashed >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int32)
    standard_deviation = 65536 * (4 / 12) ** 0.5
    return (total - np.int32(2 * 65535)).astype(np.float32) * np.float32(1 / standard_deviation)
