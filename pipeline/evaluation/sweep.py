"""Scores at many thresholds without writing a volume: fragments against labels once, then one LUT per threshold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from ..segmentation import SmallSegments, connected_components, relabel
from .contingency import Contingency
from .metrics import cremi_score, rand_error_of_table, voi_of_table

Scores = dict[str, float]
"""`voi_split`, `voi_merge`, `voi_sum` in bits, `adapted_rand_error` and `cremi_score`; of images also the scores of
their objects; `scored`, the number of voxels that counted, and of a region `scored_share`, the share of its voxels."""


SCORE_TITLES = {
    "panoptic_quality": "PQ",
    "segmentation_quality": "PQ segmentation",
    "recognition_quality": "PQ recognition",
    "f1": "F1",
    "aggregated_jaccard": "AJI",
    "dice": "Dice",
    "voi_split": "VOI split",
    "voi_merge": "VOI merge",
    "voi_sum": "VOI sum",
    "adapted_rand_error": "adapted Rand error",
    "cremi_score": "CREMI score",
    "scored": "voxels scored",
    "scored_share": "share scored",
}
"""Scores in the order of tables, with short titles; those of objects are there for separate images only."""


def common_scores(of_segmentations: Collection[Mapping[str, float]]) -> list[str]:
    """The scores that all segmentations have, in the order of tables."""
    return [name for name in SCORE_TITLES if all(name in scores for scores in of_segmentations)]


def scores_of_table(table: Contingency) -> Scores:
    """All scores of a segmentation, from its contingency table."""
    voi, rand_error = voi_of_table(table), rand_error_of_table(table)
    return {
        "voi_split": round(voi.split, 6),
        "voi_merge": round(voi.merge, 6),
        "voi_sum": round(voi.split + voi.merge, 6),
        "adapted_rand_error": round(rand_error, 6),
        "cremi_score": round(cremi_score(voi, rand_error), 6),
        "scored": table.total,
    }


def with_share(scores: Scores, voxels: int) -> Scores:
    """Scores with the share of voxels that counted.

    Args:
        scores: of a region.
        voxels: of the region, counted or not.
    """
    return {**scores, "scored_share": round(scores["scored"] / voxels, 6)}


def score_text(value: float) -> str:
    """A score with four decimals, a number of voxels without any."""
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def sweep_thresholds(
    table: Contingency,
    edges: np.ndarray,
    merge_scores: np.ndarray,
    thresholds: Iterable[float],
    maximum_score: float = 1.0,
    score: Callable[[Contingency], Scores] = scores_of_table,
    small: SmallSegments | None = None,
) -> dict[float, Scores]:
    """Scores of the segmentation at each threshold.

    Args:
        table: fragments against labels.
        edges: (E, 2) fragment ids of the whole graph.
        merge_scores: (E,) score at which the two fragments of each edge are in one segment.
        thresholds: merge scores up to which fragments are merged.
        maximum_score: edges above this are never merged.
        score: of a table of segments against labels.
        small: what more joins small segments.
    """
    results = {}
    for threshold in thresholds:
        lut = connected_components(table.segment, edges, merge_scores, min(threshold, maximum_score), small)
        segments = relabel(table.segment, lut[:, 0], lut[:, 1])
        results[threshold] = score(table.relabelled(segments))
    return results


def best_of(scores: Mapping[float, Scores]) -> float:
    """The threshold with the best scores; of several, the one that merges least."""
    return min(scores, key=lambda threshold: (loss_of(scores[threshold]), threshold))


def loss_of(scores: Scores) -> float:
    """What decides between segmentations, smaller is better: the VOI, or of images what their panoptic quality lacks
    to 1.
    """
    return 1 - scores["panoptic_quality"] if "panoptic_quality" in scores else scores["voi_sum"]


def format_score(scores: Scores) -> str:
    """The score that decides, in words."""
    if "panoptic_quality" in scores:
        return f"panoptic quality {scores['panoptic_quality']:.3f}"
    return f"VOI {scores['voi_sum']:.3f} bits"
