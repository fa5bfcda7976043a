"""Where segments touch inside an object, and objects inside a segment: places at which a segmentation may be wrong.

Volumes are read block by block, as `count_overlaps` does. Voxels without a label or segment between two that have one,
a membrane that is not annotated for example, count as those of the nearest, so that what it separates touches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from funlib.geometry import Coordinate

from ..segmentation import relabel
from ..volumes import Box
from .contingency import Contingency, contingency_table, merge_tables, unsigned_ids
from .overlaps import BLOCK_SHAPE, BoxReader, LabelRules, Parts, without_small

GAP = 8
"""Voxels of the finest axis that a gap is bridged on each side at most."""


@dataclass(frozen=True)
class Seams:
    """Contacts, one row per pair of ids and what they touch in.

    Attributes:
        inside: (N,) uint64 id of the object, or of the segment, that both lie in.
        first, second: (N,) uint64 ids of the two that touch, the smaller one first.
        faces: (N,) int64 faces between voxels of the two.
        place: (N, 3) int64 voxel beside one of those faces.
    """

    inside: np.ndarray
    first: np.ndarray
    second: np.ndarray
    faces: np.ndarray
    place: np.ndarray

    def added(self) -> Seams:
        """Rows of equal ids as one: faces add up, and the place is that of the row with most of them."""
        order = np.lexsort((-self.faces, self.second, self.first, self.inside))
        keys = np.stack([self.inside, self.first, self.second])[:, order]
        starts = _starts(keys)
        faces = np.add.reduceat(self.faces[order], starts) if len(starts) else self.faces
        inside, first, second = keys[:, starts]
        return Seams(inside, first, second, faces, self.place[order][starts])

    @staticmethod
    def concatenated(parts: Sequence[Seams]) -> Seams:
        """All rows."""
        none = np.zeros(0, np.uint64)
        empty = Seams(none, none, none, np.zeros(0, np.int64), np.zeros((0, 3), np.int64))
        every = [empty, *parts]
        return Seams(**{name: np.concatenate([getattr(part, name) for part in every]) for name in vars(empty)})


@dataclass(frozen=True)
class Overlap:
    """What two volumes share, and where.

    Attributes:
        table: voxels of every pair of segment and object.
        voxels: (N, 3) int64 a voxel of each pair, in the order of the table.
        splits: segments that touch inside an object.
        merges: objects that touch inside a segment.
        label_of: original label by object.
    """

    table: Contingency
    voxels: np.ndarray
    splits: Seams
    merges: Seams
    label_of: dict[int, int]


def find_seams(
    segmentation: BoxReader,
    labels: BoxReader,
    box: Box,
    *,
    shift: Sequence[int] = (0, 0, 0),
    rules: LabelRules | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    block_shape: Sequence[int] = BLOCK_SHAPE,
) -> Overlap:
    """Compare a segmentation with labels: what they share, and all seams.

    Args:
        segmentation, labels: ids, (z, y, x).
        box: the region, in voxels of `labels`.
        shift: voxel v of `labels` is voxel v - shift of `segmentation`.
        rules: which labels count as objects, as of `count_overlaps`.
        spacing: extent of a voxel along z, y, x; only the ratios matter.
        block_shape: voxels read at a time. Gaps are bridged within each; else the result does not depend on it, except
            for which voxel of a seam is told.

    Raises:
        NegativeIdError: a voxel that counts has a negative id.
    """
    rules = rules or LabelRules()
    parts = Parts(box) if rules.relabel else None
    tables, cells, splits, merges = [], [], [], []
    label_of: dict[int, int] = {}
    faces_before = _FacesBefore(box)
    for block in box.split(block_shape):
        ids = labels.read(block)
        objects = unsigned_ids(ids, of_labels=True) if parts is None else parts.number(ids, block)
        segments = segmentation.read(Box(block.begin - Coordinate(shift), block.end - Coordinate(shift)))
        tables.append(contingency_table(segments, objects))
        segments = unsigned_ids(np.maximum(segments, 0), of_labels=False)  # those below 0 are where nothing counts
        cells.append(_longest_runs(segments, objects, block))
        known = unsigned_ids(ids, of_labels=True)
        if parts is not None:
            label_of |= _labels_of(objects, known)
        (segments,) = _bridged(spacing, segments)
        objects, known = _bridged(spacing, objects, known)
        for touching in faces_before.touching(segments, objects, known, block):
            splits.append(touching.contacts("objects", "segments"))
            merges.append(touching.contacts("segments", "objects"))
    return _joined(merge_tables(tables), cells, splits, merges, label_of, parts, rules)


def _joined(
    table: Contingency,
    cells: list[Seams],
    splits: list[Seams],
    merges: list[Seams],
    label_of: dict[int, int],
    parts: Parts | None,
    rules: LabelRules,
) -> Overlap:
    """Parts of objects that are one, and what is left of objects that count."""
    cell, split, merge = (Seams.concatenated(each) for each in (cells, splits, merges))
    if parts is not None:
        lut = parts.lut(table.label)
        label_of = {int(new): label_of[int(old)] for old, new in zip(*lut, strict=True)}
        cell = replace(cell, second=relabel(cell.second, *lut))
        split = replace(split, inside=relabel(split.inside, *lut))
        first, second = np.sort([relabel(merge.first, *lut), relabel(merge.second, *lut)], axis=0)
        merge = replace(merge, first=first, second=second)
        table = merge_tables([replace(table, label=relabel(table.label, *lut))])
    table = without_small(table, rules.minimum_size)
    cell = cell.added()
    at = np.searchsorted(_key(cell.first, cell.second), _key(table.segment, table.label))
    kept = np.unique(table.label)
    return Overlap(
        table,
        cell.place[at],
        _chosen(split, np.isin(split.inside, kept)).added(),
        _chosen(
            merge, np.isin(merge.first, kept) & np.isin(merge.second, kept) & (merge.first != merge.second)
        ).added(),
        label_of,
    )


@dataclass(frozen=True)
class _Touching:
    """Segments and objects whose neighbours along an axis touch.

    Attributes:
        segments, objects: ids, (z, y, x).
        labels: original labels: parts of one object have other ids in every block, but one label.
        origin: the first voxel.
        axis: along which voxels are neighbours.
    """

    segments: np.ndarray
    objects: np.ndarray
    labels: np.ndarray
    origin: Coordinate
    axis: int

    def contacts(self, wholes: str, pieces: str) -> Seams:
        """Where two different pieces touch inside one whole, none of them 0: `segments` or `objects` either."""
        before, after = self._sides(getattr(self, pieces))
        whole, _ = self._sides(getattr(self, wholes))
        one, other = self._sides(self.labels if wholes == "objects" else self.segments)
        touch = (one == other) & (before != after) & (whole != 0) & (before != 0) & (after != 0)
        place = np.argwhere(touch)
        ends = np.sort(np.stack([before[touch], after[touch]]), axis=0)
        order = np.lexsort((ends[1], ends[0], whole[touch]))
        keys = np.stack([whole[touch], *ends])[:, order]
        starts = _starts(keys)
        faces = np.diff(np.append(starts, len(order)))
        middle = order[starts + faces // 2]
        inside, first, second = keys[:, starts]
        return Seams(inside, first, second, faces, place[middle] + np.asarray(self.origin))

    def _sides(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What lies before a face and what behind it."""
        low, high = ([slice(None)] * 3 for _ in range(2))
        low[self.axis], high[self.axis] = slice(None, -1), slice(1, None)
        return ids[tuple(low)], ids[tuple(high)]


class _FacesBefore:
    """The last voxels along each axis of blocks that were visited, so that contacts across blocks are seen."""

    def __init__(self, region: Box) -> None:
        self._region = region
        shapes = [tuple(np.delete(region.shape, axis)) for axis in range(3)]
        self._planes = [[np.zeros(shape, np.uint64) for _ in range(3)] for shape in shapes]

    def touching(
        self, segments: np.ndarray, objects: np.ndarray, labels: np.ndarray, block: Box
    ) -> Iterator[_Touching]:
        """What touches in a block, and across its faces to blocks that were visited before."""
        within = block.relative_to(self._region)
        arrays = segments, objects, labels
        for axis in range(3):
            yield _Touching(segments, objects, labels, block.begin, axis)
            face = tuple(np.delete(np.array(within.slices, dtype=object), axis))
            if within.begin[axis] > 0:
                one, two, three = (
                    np.stack([plane[face], array.take(0, axis)], axis=axis)
                    for plane, array in zip(self._planes[axis], arrays, strict=True)
                )
                step = Coordinate(int(a == axis) for a in range(3))
                yield _Touching(one, two, three, block.begin - step, axis)
            for plane, array in zip(self._planes[axis], arrays, strict=True):
                plane[face] = array.take(-1, axis)


def _longest_runs(segments: np.ndarray, objects: np.ndarray, block: Box) -> Seams:
    """A voxel in the middle of the longest run along x of every pair of segment (`first`) and object (`second`)."""
    one, other = segments.ravel(), objects.ravel()
    changes = (one[1:] != one[:-1]) | (other[1:] != other[:-1])
    changes[segments.shape[-1] - 1 :: segments.shape[-1]] = True
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(np.append(starts, one.size))
    place = np.stack(np.unravel_index(starts + lengths // 2, segments.shape), axis=1) + np.asarray(block.begin)
    return Seams(np.zeros(len(starts), np.uint64), one[starts], other[starts], lengths, place).added()


def _bridged(spacing: Sequence[float], ids: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Ids, and other arrays at the same places, with narrow gaps where ids are 0 filled from the nearest in the block.

    Args:
        spacing: extent of a voxel along z, y, x; only the ratios matter.
        ids: (z, y, x).
        others: likewise.
    """
    from scipy.ndimage import distance_transform_edt  # slow to import

    gaps = ids == 0
    if not gaps.any() or gaps.all():
        return [ids, *others]
    unit = np.asarray(spacing, np.float64) / min(spacing)
    distance, nearest = distance_transform_edt(gaps, sampling=unit, return_indices=True)
    narrow, nearest = distance <= GAP, tuple(nearest)
    return [np.where(narrow, array[nearest], array) for array in (ids, *others)]


def _labels_of(objects: np.ndarray, labels: np.ndarray) -> dict[int, int]:
    ids, first = np.unique(objects, return_index=True)
    return dict(zip(ids.tolist(), labels.ravel()[first].tolist(), strict=True))


def _starts(keys: np.ndarray) -> np.ndarray:
    """Where a new key begins in sorted ones, (rows, N)."""
    changes = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    return np.flatnonzero(np.concatenate([[True], changes])[: keys.shape[1]])


def _chosen(seams: Seams, rows: np.ndarray) -> Seams:
    return Seams(**{name: column[rows] for name, column in vars(seams).items()})


def _key(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pairs of ids as something that is sorted as they are."""
    key = np.empty(len(first), [("first", np.uint64), ("second", np.uint64)])
    key["first"], key["second"] = first, second
    return key
