"""How many voxels each segment shares with each label: a sparse table, which adds up over blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..label_ids import has_any


class NegativeIdError(ValueError):
    """An id below 0 among voxels that count.

    Attributes:
        of_labels: it is one of the labels; otherwise one of the segmentation.
        id: the lowest.
    """

    def __init__(self, of_labels: bool, lowest: int) -> None:
        self.of_labels, self.id = of_labels, lowest
        super().__init__(f"the {'labels hold' if of_labels else 'segmentation holds'} the negative id {lowest}")


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
        segmentation, labels: integer ids, of one shape; not negative where they count.
        ignore_labels: labels whose voxels do not count; any integers.

    Raises:
        ValueError: the shapes differ, or ids are no whole numbers.
        NegativeIdError: a voxel that counts has a negative id.
    """
    if segmentation.shape != labels.shape:
        raise ValueError(f"segmentation of shape {segmentation.shape}, but labels of shape {labels.shape}")
    segments, objects, counts = _run_lengths(segmentation.ravel(), labels.ravel())
    keep = ~has_any(objects, ignore_labels)
    ids = unsigned_ids(segments[keep], of_labels=False), unsigned_ids(objects[keep], of_labels=True)
    return _sum_entries(*ids, counts[keep])


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
        return segments, labels, np.zeros(0, np.int64)
    changes = (segments[1:] != segments[:-1]) | (labels[1:] != labels[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(np.concatenate([starts, [segments.size]]))
    return segments[starts], labels[starts], lengths


def unsigned_ids(ids: np.ndarray, of_labels: bool) -> np.ndarray:
    """Ids as uint64.

    Args:
        ids: of any type.
        of_labels: they are labels, not segments; for messages.

    Raises:
        ValueError: they are no whole numbers.
        NegativeIdError: one is negative, and would become another one.
    """
    if ids.dtype.kind not in "uib":
        raise ValueError(f"{'labels' if of_labels else 'segments'} are {ids.dtype}; ids are whole numbers")
    if ids.dtype.kind == "i" and ids.min(initial=0) < 0:
        raise NegativeIdError(of_labels, int(ids.min()))
    return ids.astype(np.uint64)


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
