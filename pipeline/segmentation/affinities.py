"""Checks and conversions of affinities that the algorithms of this package share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NEAREST_NEIGHBOURS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""The affinity offsets that watershed and waterz expect, order z, y, x."""


def as_unit_interval(affinities: np.ndarray) -> np.ndarray:
    """Affinities as float32 in [0, 1]: uint8 is divided by 255, floats are taken as they are.

    Raises:
        ValueError: another dtype, or no channel axis.
    """
    check_kind(affinities)
    if affinities.dtype == np.uint8:
        return affinities.astype(np.float32) / np.float32(255)
    return affinities.astype(np.float32, copy=False)


def check_kind(affinities: np.ndarray) -> None:
    """Check axes and data type of affinities.

    Raises:
        ValueError: neither uint8 nor floating point, or no channel axis.
    """
    if affinities.ndim != 4:
        raise ValueError(f"affinities have axes (k, z, y, x), got an array of shape {affinities.shape}")
    if affinities.dtype != np.uint8 and not np.issubdtype(affinities.dtype, np.floating):
        raise ValueError(f"affinities are uint8 or floating point, got {affinities.dtype}")


def check_matching(affinities: np.ndarray, fragments: np.ndarray, offsets: Sequence[Sequence[int]]) -> None:
    """Check that affinities, fragments and offsets fit together.

    Raises:
        ValueError: affinities and fragments differ in shape, or channels and offsets differ in number.
    """
    if affinities.ndim != 4 or affinities.shape[1:] != fragments.shape:
        raise ValueError(f"affinities of shape {affinities.shape} do not cover fragments of shape {fragments.shape}")
    if affinities.shape[0] != len(offsets):
        raise ValueError(f"{affinities.shape[0]} affinity channels, but {len(offsets)} offsets")
