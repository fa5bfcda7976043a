"""The contingency table of two volumes on disk, built block by block in bounded memory.

Objects are the labels' separate connected parts, if asked for: a neurite that leaves the region and comes back counts
as two. Parts are found in each block and joined where they touch across the faces of blocks, so neither the volumes nor
the parts are ever in memory as a whole: a block, one cross-section of the region per axis, and the table are.
Two voxels are connected if they share a face.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import cc3d
import numpy as np
from funlib.geometry import Coordinate

from ..segmentation import connected_components, relabel
from ..volumes import Box
from ..volumes.nanometres import Nanometres
from .contingency import Contingency, contingency_table, merge_tables, unsigned_ids

BLOCK_SHAPE: tuple[int, int, int] = (64, 256, 256)
"""Voxels read at a time."""


class BoxReader(Protocol):
    """What is read in boxes: a `Volume`, a dataset of a file, an array."""

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box."""


@dataclass(frozen=True)
class InMemory:
    """An array to be read in boxes, like a volume on disk.

    Attributes:
        array: (z, y, x) ids or bool; of images (y, x).
        offset: position of the first voxel in nanometres.
    """

    array: np.ndarray
    offset: Nanometres = (0.0, 0.0, 0.0)

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box."""
        return self.array[box.slices]


@dataclass(frozen=True)
class LabelRules:
    """Which labels count as objects.

    Attributes:
        relabel: separate connected parts of a label are separate objects.
        minimum_size: objects with fewer voxels do not count.
    """

    relabel: bool = False
    minimum_size: int = 0


def count_overlaps(
    segmentation: BoxReader,
    labels: BoxReader,
    box: Box,
    *,
    shift: Sequence[int] | None = None,
    rules: LabelRules | None = None,
    background: bool = False,
    known: BoxReader | None = None,
    block_shape: Sequence[int] = BLOCK_SHAPE,
) -> Contingency:
    """How many voxels each segment shares with each labelled object in a region.

    Args:
        segmentation, labels: ids.
        box: the region, in voxels of `labels`.
        shift: voxel v of `labels` is voxel v - shift of `segmentation`. Default: 0.
        rules: which labels count as objects; voxels of the others do not count. Default: all, as they are.
        background: whether voxels with label 0 count, as label 0.
        known: where voxels count, bool, in voxels of `labels`. Default: everywhere.
        block_shape: voxels read at a time; the result does not depend on it, except for the ids of objects.

    Returns:
        The table. With `rules.relabel`, its labels are new ids.

    Raises:
        NegativeIdError: a voxel that counts has a negative id.
    """
    rules = rules or LabelRules()
    shift = Coordinate(shift if shift is not None else (0,) * len(box.begin))
    parts = Parts(box) if rules.relabel else None
    tables = []
    for block in box.split(block_shape[-len(box.begin) :]):
        objects = labels.read(block)
        if parts is not None:
            objects = parts.number(objects, block)
        segments = segmentation.read(Box(block.begin - shift, block.end - shift))
        if known is not None:
            counted = known.read(block)
            segments, objects = segments[counted], objects[counted]
        tables.append(contingency_table(segments, objects, ignore_labels=() if background else (0,)))
    table = merge_tables(tables)
    if parts is not None:
        table = parts.join(table)
    return without_small(table, rules.minimum_size)


def count_block_overlaps(
    segmentation: BoxReader,
    labels: BoxReader,
    box: Box,
    blocks: Iterable[Box],
    *,
    shift: Sequence[int],
    rules: LabelRules,
) -> list[Contingency]:
    """The same for each block of a region by itself; objects are those of the whole region.

    Args:
        segmentation, labels, box, shift, rules: as of `count_overlaps`.
        blocks: the region in the cells of a grid, in C order.

    Returns:
        A table per block.
    """
    parts = Parts(box) if rules.relabel else None
    tables = []
    for block in blocks:
        objects = labels.read(block)
        if parts is not None:
            objects = parts.number(objects, block)
        segments = segmentation.read(Box(block.begin - Coordinate(shift), block.end - Coordinate(shift)))
        tables.append(contingency_table(segments, objects))
    if parts is not None:
        lut = parts.lut(merge_tables(tables).label)
        tables = [merge_tables([replace(table, label=relabel(table.label, *lut))]) for table in tables]
    whole = merge_tables(tables)
    ids = np.unique(whole.label)
    small = ids[whole.label_sizes() < rules.minimum_size]
    return [table.without_labels(small) for table in tables]


def prepare_labels(labels: np.ndarray, rules: LabelRules) -> np.ndarray:
    """The labelled objects of an array, (z, y, x) uint64, by the same rules as `count_overlaps`; 0 elsewhere."""
    objects = unsigned_ids(labels, of_labels=True)
    if rules.relabel and labels.size:
        objects = _connected_parts(objects)
    ids, sizes = np.unique(objects, return_counts=True)
    keep = (ids != 0) & (sizes >= rules.minimum_size)
    return relabel(objects, ids[keep], ids[keep])


class Parts:
    """The connected parts of labels in a region that is visited block by block, in C order."""

    def __init__(self, region: Box) -> None:
        self._region = region
        self._count = 0
        self._links: list[np.ndarray] = []
        cross_sections = [tuple(np.delete(region.shape, axis)) for axis in range(len(region.shape))]
        self._labels = [np.zeros(shape, np.uint64) for shape in cross_sections]
        self._parts = [np.zeros(shape, np.uint64) for shape in cross_sections]

    def number(self, labels: np.ndarray, block: Box) -> np.ndarray:
        """The parts of a block, uint64, with ids of their own; notes where they touch parts of earlier blocks."""
        labels = unsigned_ids(labels, of_labels=True)
        found = _connected_parts(labels)
        parts = np.where(found > 0, found + np.uint64(self._count), np.uint64(0))
        self._count += int(found.max(initial=0))
        within = block.relative_to(self._region)
        for axis in range(labels.ndim):
            face = tuple(np.delete(np.array(within.slices, dtype=object), axis))
            if within.begin[axis] > 0:
                self._link(self._labels[axis][face], self._parts[axis][face], labels, parts, axis)
            self._labels[axis][face] = labels.take(-1, axis)
            self._parts[axis][face] = parts.take(-1, axis)
        return parts

    def _link(
        self, labels_before: np.ndarray, before: np.ndarray, labels: np.ndarray, parts: np.ndarray, axis: int
    ) -> None:
        first = labels.take(0, axis)
        same = (first == labels_before) & (first != 0)
        pairs = np.stack([before[same], parts.take(0, axis)[same]], axis=1)
        self._links.append(np.unique(pairs, axis=0))

    def lut(self, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sorted ids of parts, and the object that each belongs to, when all blocks have been visited."""
        links = np.concatenate([np.zeros((0, 2), np.uint64), *self._links])
        lut = connected_components(parts, links, np.zeros(len(links)), 0)
        return lut[:, 0], lut[:, 1]

    def join(self, table: Contingency) -> Contingency:
        """The table with parts that touch made one object."""
        return merge_tables([replace(table, label=relabel(table.label, *self.lut(table.label)))])


def _connected_parts(labels: np.ndarray) -> np.ndarray:
    """The parts of labels that are connected through faces, 1..n, uint64; 0 stays 0."""
    connectivity: Literal[4, 6] = 6 if labels.ndim == 3 else 4
    result: np.ndarray = cc3d.connected_components(np.ascontiguousarray(labels), connectivity=connectivity).astype(
        np.uint64
    )
    return result


def without_small(table: Contingency, minimum_size: int) -> Contingency:
    """The table without the labels that have fewer voxels."""
    ids = np.unique(table.label)
    return table.without_labels(ids[(table.label_sizes() < minimum_size) & (ids > 0)])
