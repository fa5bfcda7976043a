"""How well affinities tell apart what a reference holds apart."""

from __future__ import annotations

from statistics import mean

import numpy as np

from pipeline.config import NEAREST_NEIGHBOURS
from pipeline.evaluation import find_truth
from pipeline.run import Run

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


def area_between_neighbours(run: Run) -> float:
    """How well a finished run's affinities tell neighbouring voxels of one object from all others, as `told_apart`,
    mean of the three directions. Unlike the VOI it does not hang on single contacts.

    Args:
        run: its segmented region is its validation region and fits into memory.

    Raises:
        ValueError: all neighbours are of one object, or none are.
    """
    truth, affinities = find_truth(run), run.open_computed("affinities")
    labels, stored = truth.read(truth.region), affinities.read(affinities.box)
    return mean(told_apart(*_pairs(stored[axis], labels, axis)) for axis in range(len(NEAREST_NEIGHBOURS)))


def _pairs(affinities: np.ndarray, labels: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The affinities (z, y, x) of voxels with those before them along an axis, and what labels say of them."""
    length = labels.shape[axis]
    here, before = labels.take(range(1, length), axis), labels.take(range(length - 1), axis)
    together = (here == before) & (here > 0)
    return affinities.take(range(1, length), axis), np.where(together, LEVELS - 1, 0)
