"""Ids at places in nanometres, and under a mask, read block by block from a volume of any format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from funlib.geometry import Coordinate

from ..errors import UserError
from ..units import by
from ..volumes import Box
from .contingency import Contingency, NegativeIdError, unsigned_ids
from .label_files import SAME_PLACE, LabelFile
from .overlaps import BLOCK_SHAPE, BoxReader, count_overlaps
from .skeletons import Skeletons


@dataclass(frozen=True)
class PlacedIds:
    """Ids of a volume and where they lie.

    Attributes:
        ids: read in boxes of voxels.
        name: for messages.
        shape: (z, y, x) voxels.
        voxel_size, offset: nanometres; offset is that of the first voxel's corner.
        placed: whether the offset is stated, not only supposed.
        source: shape and offset of the larger volume that it is a part of; None if of none.
    """

    ids: BoxReader
    name: str
    shape: Sequence[int]
    voxel_size: Sequence[float]
    offset: Sequence[float]
    placed: bool = True
    source: tuple[Sequence[int], Sequence[float]] | None = None

    def at(self, skeletons: Skeletons, block_shape: Sequence[int] = BLOCK_SHAPE) -> np.ndarray:
        """(N,) uint64 the id that each node lies in; 0 outside. Only blocks with nodes are read, one after another.

        Raises:
            UserError: an id is negative.
        """
        voxels = skeletons.voxels(self.voxel_size, self.offset)
        found = np.zeros(len(voxels), np.uint64)
        for nodes in _by_block(voxels, self.inside(skeletons), block_shape):
            begin, end = voxels[nodes].min(axis=0), voxels[nodes].max(axis=0) + 1
            ids = self.ids.read(Box(Coordinate(begin.tolist()), Coordinate(end.tolist())))
            with _explaining(self.name):
                found[nodes] = unsigned_ids(ids[tuple((voxels[nodes] - begin).T)], of_labels=False)
        return found

    def inside(self, skeletons: Skeletons) -> np.ndarray:
        """(N,) bool whether nodes lie in the volume."""
        return skeletons.in_box(Box.of_shape(self.shape), self.voxel_size, self.offset)

    def require_nodes(self, skeletons: Skeletons) -> int:
        """How many nodes lie outside; their edges count as omitted.

        Raises:
            UserError: all of them do: skeletons and volume are not of one place or unit.
        """
        outside = int((~self.inside(skeletons)).sum())
        if outside == len(skeletons.owner):
            low, high = skeletons.positions.min(axis=0).tolist(), skeletons.positions.max(axis=0).tolist()
            begin = list(self.offset)
            end = [start + count * size for start, count, size in zip(begin, self.shape, self.voxel_size, strict=True)]
            raise UserError(
                f"no node lies in the volume: nodes are at {_places(low)} to {_places(high)} nm (z, y, x), the volume"
                f" at {_places(begin)} to {_places(end)} nm; are the nodes in other units, see --skeleton-scale?",
                self.name,
            )
        return outside

    def masked(self, mask: LabelFile) -> Contingency:
        """How many voxels of a mask each id above 0 has; all have the label 1.

        Raises:
            UserError: the mask lies elsewhere, or has other voxels.
        """
        box, shift = self._overlap_with(mask)
        with _explaining(self.name):
            table = count_overlaps(self.ids, _AboveZero(mask), box, shift=shift)
        keep = table.segment > 0
        return Contingency(table.segment[keep], table.label[keep], table.count[keep])

    def _overlap_with(self, mask: LabelFile) -> tuple[Box, Coordinate]:
        """The voxels of a mask that lie in this volume, and where this volume begins in voxels of the mask."""
        if mask.voxel_size is not None and not np.allclose(mask.voxel_size, self.voxel_size, rtol=SAME_PLACE, atol=0):
            raise UserError(
                f"has voxels of {by(mask.voxel_size)} nm, but {self.name} has {by(self.voxel_size)} nm", mask.name
            )
        exact = (np.array(self.offset) - np.array(self._offset_of(mask))) / np.array(self.voxel_size)
        shift = np.rint(exact)
        if (np.abs(exact - shift) > SAME_PLACE).any():
            raise UserError(f"lies a fraction of a voxel beside {self.name}: {by(exact.tolist())} voxels", mask.name)
        begin = Coordinate(shift.astype(int).tolist())
        box = Box(begin, begin + Coordinate(self.shape)).intersect(Box.of_shape(mask.shape))
        if box.size == 0:
            raise UserError(f"has no voxel in common with {self.name}", mask.name)
        return box, begin

    def _offset_of(self, mask: LabelFile) -> Sequence[float]:
        """Where a mask begins: what it says, or where a volume of its shape does."""
        if mask.offset is not None and self.placed:
            return mask.offset
        places = [(self.shape, self.offset), *([] if self.source is None else [self.source])]
        for shape, offset in places:
            if tuple(mask.shape) == tuple(shape):
                return offset
        raise UserError(
            f"has the shape {by(mask.shape)}, and where it lies is not stated; then it has the shape of {self.name},"
            f" {' or of raw, '.join(by(shape) for shape, _ in places)}",
            mask.name,
        )


@dataclass(frozen=True)
class _AboveZero:
    """Where a mask is above 0, as label 1."""

    mask: LabelFile

    def read(self, box: Box) -> np.ndarray:
        """(z, y, x) uint8."""
        return (self.mask.read(box) > 0).astype(np.uint8)


def _by_block(voxels: np.ndarray, inside: np.ndarray, block_shape: Sequence[int]) -> Iterator[np.ndarray]:
    """The nodes of each block that has any."""
    nodes = np.flatnonzero(inside)
    blocks, block_of = np.unique(voxels[nodes] // np.array(block_shape), axis=0, return_inverse=True)
    order = np.argsort(block_of.reshape(-1), kind="stable")
    bounds = np.searchsorted(block_of.reshape(-1)[order], np.arange(len(blocks) + 1))
    for begin, end in pairwise(bounds.tolist()):
        yield nodes[order[begin:end]]


@contextmanager
def _explaining(name: str) -> Iterator[None]:
    """Turn a negative id into one line for the user."""
    try:
        yield
    except NegativeIdError as error:
        raise UserError(f"holds the negative id {error.id}; ids of segments are 0 or more", name) from error


def _places(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
