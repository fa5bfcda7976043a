"""Scores at many thresholds without writing a volume: fragments against labels once, then one LUT per threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..segmentation import connected_components, relabel
from .contingency import Contingency
from .metrics import rand_error_of_table, voi_of_table

Scores = dict[str, float]
"""`voi_split`, `voi_merge`, `voi_sum` in bits and `adapted_rand_error`."""


def scores_of_table(table: Contingency) -> Scores:
    """All scores of a segmentation, from its contingency table."""
    voi = voi_of_table(table)
    return {
        "voi_split": round(voi.split, 6),
        "voi_merge": round(voi.merge, 6),
        "voi_sum": round(voi.split + voi.merge, 6),
        "adapted_rand_error": round(rand_error_of_table(table), 6),
    }


def sweep_thresholds(
    table: Contingency,
    edges: np.ndarray,
    merge_scores: np.ndarray,
    thresholds: Iterable[float],
    maximum_score: float = 1.0,
) -> dict[float, Scores]:
    """Scores of the segmentation at each threshold.

    Args:
        table: fragments against labels.
        edges: (E, 2) fragment ids of the whole graph.
        merge_scores: (E,) score at which the two fragments of each edge are in one segment.
        thresholds: merge scores up to which fragments are merged.
        maximum_score: edges above this are never merged.
    """
    results = {}
    for threshold in thresholds:
        lut = connected_components(table.segment, edges, merge_scores, min(threshold, maximum_score))
        segments = relabel(table.segment, lut[:, 0], lut[:, 1])
        results[threshold] = scores_of_table(table.relabelled(segments))
    return results


def best_of(scores: Mapping[float, Scores]) -> float:
    """The threshold with the lowest VOI; of several, the one that merges least."""
    return min(scores, key=lambda threshold: (scores[threshold]["voi_sum"], threshold))
