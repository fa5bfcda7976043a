"""How well affinities tell apart what a reference holds apart."""

from __future__ import annotations

import numpy as np

LEVELS = 256
HALF = LEVELS // 2


def told_apart(affinities: np.ndarray, reference: np.ndarray) -> float:
    """The area under the ROC curve: how often an affinity is lower where the reference is below one half than where it
    is not, over all pairs of such places; equal ones count half.

    Args:
        affinities, reference: of the same shape, uint8, 255 = certainly together.

    Raises:
        ValueError: the reference holds nothing apart, or nothing together.
    """
    apart = np.bincount(affinities[reference < HALF].ravel(), minlength=LEVELS)
    together = np.bincount(affinities[reference >= HALF].ravel(), minlength=LEVELS)
    pairs = int(apart.sum()) * int(together.sum())
    if pairs == 0:
        raise ValueError("the reference does not hold some places apart and others together")
    lower = np.cumsum(apart) - apart / 2
    return float((together * lower).sum() / pairs)
