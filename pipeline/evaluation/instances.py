"""Scores of objects on a background: how many were found, and how well each is covered.

An image with neither objects nor segments is perfect (1). Id 0 is background in the segmentation and in the labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .contingency import Contingency, contingency_table

MATCH = 0.5
"""A segment and an object match if their intersection over union is larger; above 0.5 no object has two matches."""


class PanopticQuality(NamedTuple):
    """Kirillov et al., CVPR 2019; larger is better.

    Attributes:
        quality: `segmentation` times `recognition`.
        segmentation: mean intersection over union of the matches; 0 if there is none.
        recognition: F1 score of the detection.
    """

    quality: float
    segmentation: float
    recognition: float


@dataclass(frozen=True)
class Overlaps:
    """All pairs of a segment and an object that share voxels.

    Attributes:
        segment, label: (N,) int64, positions in the two arrays of sizes.
        common: (N,) int64 voxels of the intersection.
        segment_sizes: (S,) int64 voxels.
        label_sizes: (L,) int64 voxels.
    """

    segment: np.ndarray
    label: np.ndarray
    common: np.ndarray
    segment_sizes: np.ndarray
    label_sizes: np.ndarray

    @property
    def union(self) -> np.ndarray:
        """(N,) int64 voxels of the union of each pair."""
        result: np.ndarray = self.segment_sizes[self.segment] + self.label_sizes[self.label] - self.common
        return result

    @property
    def ratio(self) -> np.ndarray:
        """(N,) float64 intersection over union of each pair."""
        result: np.ndarray = self.common / self.union
        return result


def find_overlaps(segmentation: np.ndarray, labels: np.ndarray) -> Overlaps:
    """The overlaps of two label arrays of one shape, background left out.

    Raises:
        ValueError: the shapes differ.
    """
    return overlaps_of_table(contingency_table(segmentation, labels, ignore_labels=()))


def overlaps_of_table(table: Contingency) -> Overlaps:
    """The overlaps that a contingency table counts, in which the background (id 0) takes part; it is left out here."""
    segments, segment = np.unique(table.segment, return_inverse=True)
    objects, label = np.unique(table.label, return_inverse=True)
    background_segment, background_label = int(0 in segments), int(0 in objects)  # id 0 sorts first
    pairs = (table.segment > 0) & (table.label > 0)
    return Overlaps(
        segment[pairs] - background_segment,
        label[pairs] - background_label,
        table.count[pairs],
        table.segment_sizes()[background_segment:],
        table.label_sizes()[background_label:],
    )


def instance_scores(table: Contingency) -> dict[str, float]:
    """All scores of objects on a background, by name: what the functions below give for the arrays counted.

    Args:
        table: of a segmentation and labels, the background (id 0) of both included.

    Returns:
        `panoptic_quality` with its factors `segmentation_quality` and `recognition_quality`, `f1` (the latter's other
        name), `aggregated_jaccard` and `dice`.
    """
    overlaps = overlaps_of_table(table)
    panoptic = _panoptic_quality(overlaps)
    return {
        "panoptic_quality": panoptic.quality,
        "segmentation_quality": panoptic.segmentation,
        "recognition_quality": panoptic.recognition,
        "f1": panoptic.recognition,
        "aggregated_jaccard": _aggregated_jaccard_index(overlaps),
        "dice": _dice(overlaps),
    }


def dice(segmentation: np.ndarray, labels: np.ndarray) -> float:
    """Dice coefficient of the two foregrounds, whatever the objects in them.

    Args:
        segmentation, labels: non-negative integer ids, of one shape.

    Raises:
        ValueError: the shapes differ.
    """
    return _dice(find_overlaps(segmentation, labels))


def _dice(overlaps: Overlaps) -> float:
    foregrounds = overlaps.segment_sizes.sum() + overlaps.label_sizes.sum()
    return float(2 * overlaps.common.sum() / foregrounds) if foregrounds else 1.0


def panoptic_quality(segmentation: np.ndarray, labels: np.ndarray) -> PanopticQuality:
    """Panoptic quality with its two factors.

    Args:
        segmentation, labels: as for `dice`.

    Raises:
        ValueError: the shapes differ.
    """
    return _panoptic_quality(find_overlaps(segmentation, labels))


def _panoptic_quality(overlaps: Overlaps) -> PanopticQuality:
    found, wanted = len(overlaps.segment_sizes), len(overlaps.label_sizes)
    if found + wanted == 0:
        return PanopticQuality(1.0, 1.0, 1.0)
    matches = overlaps.ratio[overlaps.ratio > MATCH]
    covered = float(matches.mean()) if len(matches) else 0.0
    recognised = 2 * len(matches) / (found + wanted)
    return PanopticQuality(covered * recognised, covered, recognised)


def f1_score(segmentation: np.ndarray, labels: np.ndarray) -> float:
    """F1 score of detection: objects found with an intersection over union above 0.5.

    Args:
        segmentation, labels: as for `dice`.

    Raises:
        ValueError: the shapes differ.
    """
    return panoptic_quality(segmentation, labels).recognition


def aggregated_jaccard_index(segmentation: np.ndarray, labels: np.ndarray) -> float:
    """Aggregated Jaccard index (Kumar et al., IEEE TMI 2017).

    Every object meets the segment with the largest intersection over union; the sum of intersections is divided by
    the sum of unions, to which the voxels of objects that meet none and of segments that none met are added.

    Args:
        segmentation, labels: as for `dice`.

    Raises:
        ValueError: the shapes differ.
    """
    return _aggregated_jaccard_index(find_overlaps(segmentation, labels))


def _aggregated_jaccard_index(overlaps: Overlaps) -> float:
    if len(overlaps.segment_sizes) + len(overlaps.label_sizes) == 0:
        return 1.0
    best_first = np.lexsort((overlaps.segment, -overlaps.ratio, overlaps.label))
    met, first = np.unique(overlaps.label[best_first], return_index=True)
    best = best_first[first]
    unmet_labels = np.delete(overlaps.label_sizes, met)
    unmet_segments = np.delete(overlaps.segment_sizes, np.unique(overlaps.segment[best]))
    union = overlaps.union[best].sum() + unmet_labels.sum() + unmet_segments.sum()
    return float(overlaps.common[best].sum() / union)
