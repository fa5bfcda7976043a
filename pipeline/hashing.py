"""SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): scrambles integers so that every bit changes half of the others."""

from __future__ import annotations

import numpy as np

GOLDEN: np.uint64 = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio, the increment of SplitMix64: adding or multiplying it spreads small integers."""
_FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_FACTOR = np.uint64(0x94D049BB133111EB)


def splitmix64(values: np.ndarray) -> np.ndarray:
    """Apply the finaliser of SplitMix64 to an array of uint64, of any shape, in place, and return it."""
    values ^= values >> np.uint64(30)
    values *= _FIRST_FACTOR
    values ^= values >> np.uint64(27)
    values *= _SECOND_FACTOR
    values ^= values >> np.uint64(31)
    return values
