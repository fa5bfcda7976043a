"""Scores of a segmentation against labels, all from the contingency table of the two."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .contingency import Contingency, contingency_table


class VariationOfInformation(NamedTuple):
    """VOI in bits; smaller is better.

    Attributes:
        split: H(segmentation | labels): how much labels are cut into several segments (false splits).
        merge: H(labels | segmentation): how much segments run over several labels (false merges).
    """

    split: float
    merge: float


def variation_of_information(
    segmentation: np.ndarray, labels: np.ndarray, ignore_labels: Iterable[int] = (0,)
) -> VariationOfInformation:
    """Variation of information between two label arrays of one shape, in bits (Meilă, J. Multivariate Analysis 2007).

    Args:
        segmentation: whole numbers, (z, y, x) or any other shape; 0 counts as a segment like any other.
        labels: whole numbers, of the same shape.
        ignore_labels: labels whose voxels do not count.

    Returns:
        (split, merge): H(segmentation | labels) and H(labels | segmentation). The sum is the distance.

    Raises:
        ValueError: the shapes differ, ids are no whole numbers, or a voxel that counts has a negative id.
    """
    return voi_of_table(contingency_table(segmentation, labels, ignore_labels))


def adapted_rand_error(segmentation: np.ndarray, labels: np.ndarray, ignore_labels: Iterable[int] = (0,)) -> float:
    """1 - F-score of pairs of voxels (SNEMI3D; Arganda-Carreras et al., Frontiers in Neuroanatomy 2015; the numbers of
    scikit-image): 0 is perfect, 1 is worst.

    Args:
        segmentation, labels, ignore_labels: as for `variation_of_information`.

    Raises:
        ValueError: as for `variation_of_information`.
    """
    return rand_error_of_table(contingency_table(segmentation, labels, ignore_labels))


def cremi_score(voi: VariationOfInformation, rand_error: float) -> float:
    """The geometric mean of VOI, split and merge together, and adapted Rand error: what the CREMI challenge ranked by.

    Args:
        voi: in bits.
        rand_error: adapted Rand error of the same voxels.
    """
    return float(np.sqrt((voi.split + voi.merge) * rand_error))


def voi_of_table(table: Contingency) -> VariationOfInformation:
    """Variation of information from a contingency table; (0, 0) if it is empty."""
    joint = _entropy(table.count)
    split = joint - _entropy(table.label_sizes())
    merge = joint - _entropy(table.segment_sizes())
    return VariationOfInformation(max(0.0, split), max(0.0, merge))


def rand_error_of_table(table: Contingency) -> float:
    """Adapted Rand error from a contingency table; 0 if there are no pairs."""
    by_segment, by_label = _pairs(table.segment_sizes()), _pairs(table.label_sizes())
    if by_segment + by_label == 0:
        return 0.0
    return 1.0 - 2.0 * _pairs(table.count) / (by_segment + by_label)


def _pairs(sizes: np.ndarray) -> float:
    """Ordered pairs of different voxels within the same set."""
    sizes = sizes.astype(np.float64)
    return float((sizes * (sizes - 1)).sum())


def _entropy(sizes: np.ndarray) -> float:
    """Entropy in bits of a distribution given by counts."""
    total = sizes.sum()
    if total == 0:
        return 0.0
    share = sizes[sizes > 0] / total
    return float(-(share * np.log2(share)).sum())
