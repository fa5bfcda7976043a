"""How many voxels each segment shares with each label: a sparse table, which adds up over blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Contingency:
    """The non-zero entries of the table, sorted by (segment, label).

    Attributes:
        segment: (N,) uint64 ids of segments or fragments.
        label: (N,) uint64 ids of labels.
        count: (N,) int64 common voxels.
    """

    segment: np.ndarray
    label: np.ndarray
    count: np.ndarray

    @property
    def total(self) -> int:
        """Voxels counted."""
        return int(self.count.sum())

    def segment_sizes(self) -> np.ndarray:
        """(S,) int64 voxels of each segment, in the order of ids."""
        return _sum_by_id(self.segment, self.count)

    def label_sizes(self) -> np.ndarray:
        """(L,) int64 voxels of each label, in the order of ids."""
        return _sum_by_id(self.label, self.count)

    def relabelled(self, segments: np.ndarray) -> Contingency:
        """The table after segment `self.segment[i]` has become `segments[i]`, (N,) uint64."""
        return _sum_entries(segments, self.label, self.count)

    def without_labels(self, labels: Iterable[int]) -> Contingency:
        """The table without the voxels of some labels."""
        keep = ~np.isin(self.label, np.array(list(labels), np.uint64))
        return Contingency(self.segment[keep], self.label[keep], self.count[keep])


def contingency_table(segmentation: np.ndarray, labels: np.ndarray, ignore_labels: Iterable[int] = (0,)) -> Contingency:
    """The contingency table of two arrays of ids.

    Args:
        segmentation, labels: non-negative integer ids, of one shape.
        ignore_labels: labels whose voxels do not count.

    Raises:
        ValueError: the shapes differ.
    """
    if segmentation.shape != labels.shape:
        raise ValueError(f"segmentation of shape {segmentation.shape}, but labels of shape {labels.shape}")
    runs = _run_lengths(segmentation.ravel(), labels.ravel())
    return _sum_entries(*runs).without_labels(ignore_labels)


def merge_tables(tables: Iterable[Contingency]) -> Contingency:
    """The sum of tables, for example of all blocks of a volume."""
    parts = list(tables)
    if not parts:
        empty = np.zeros(0, np.uint64)
        return Contingency(empty, empty, np.zeros(0, np.int64))
    return _sum_entries(
        np.concatenate([part.segment for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.count for part in parts]),
    )


def _run_lengths(segments: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbouring voxels with equal ids as one entry (segment, label, count): far fewer rows to sort."""
    if segments.size == 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64)
    changes = (segments[1:] != segments[:-1]) | (labels[1:] != labels[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(np.concatenate([starts, [segments.size]]))
    return segments[starts].astype(np.uint64), labels[starts].astype(np.uint64), lengths


def _sum_entries(segments: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> Contingency:
    """Add up entries with equal ids and sort them."""
    order = np.lexsort((labels, segments))
    segments, labels, counts = segments[order], labels[order], counts[order]
    first = np.ones(len(order), bool)
    first[1:] = (segments[1:] != segments[:-1]) | (labels[1:] != labels[:-1])
    starts = np.flatnonzero(first)
    sums = np.add.reduceat(counts, starts) if len(starts) else counts
    return Contingency(segments[starts], labels[starts], sums.astype(np.int64))


def _sum_by_id(ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    _, inverse = np.unique(ids, return_inverse=True)
    return np.bincount(inverse, counts).astype(np.int64)
