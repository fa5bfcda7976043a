"""Affinities of a teacher on disk, as training reads them: from one array, or the mean of several."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from funlib.geometry import Coordinate

from ...config import Offset
from ...distillation import UNKNOWN, channel_of
from ...errors import UserError
from ...volumes import Box, cells_of
from ...volumes.formats import IN_PLACE
from ...volumes.volume import Volume
from .regions import ChunkCache

logger = logging.getLogger(__name__)

ROUNDING = 1e-3
"""Share of the range by which fractions may lie beyond it: what arithmetic and half precision leave."""
LOOKED_FOR = 1000
"""Files of a region that are looked for before a training begins."""


@dataclass(frozen=True)
class StoredArray:
    """One array of affinities on raw's voxels.

    Attributes:
        volume: (k, z, y, x).
        begin: position of its first voxel in raw's voxels.
        channels: those that are read.
        shifts: for each of them, where its value at a voxel is read, relative to the voxel.
        low, high: stored values of no affinity and of full affinity.
        where: dotted config path, for messages.
        present: of files that were looked for, whether they are there.
    """

    volume: Volume
    begin: Coordinate
    channels: tuple[int, ...]
    shifts: tuple[Offset, ...]
    low: float
    high: float
    where: str
    present: dict[tuple[int, ...], bool] = field(default_factory=dict, repr=False)

    def read(self, box: Box, cache: ChunkCache) -> np.ndarray:
        """Affinities (k, z, y, x) float32 of a box of raw's voxels; `UNKNOWN` where nothing is stored.

        Raises:
            UserError: a stored value lies beyond the range.
        """
        affinities = np.full((len(self.channels), *box.shape), UNKNOWN, np.float32)
        for shift in dict.fromkeys(self.shifts):
            alike = [index for index, one in enumerate(self.shifts) if one == shift]
            channels = [self.channels[index] for index in alike]
            there = Box(box.begin + Coordinate(shift), box.end + Coordinate(shift))
            affinities[alike] = self._read_unshifted(there, channels, cache)
        return affinities

    def _read_unshifted(self, box: Box, channels: list[int], cache: ChunkCache) -> np.ndarray:
        affinities = np.full((len(channels), *box.shape), UNKNOWN, np.float32)
        covered = Box(self.begin, self.begin + self.volume.shape)
        part = box.intersect(covered)
        if part.size:
            inside = part.relative_to(covered)
            stored = cache.read(self.volume, inside)[channels]
            affinities[(slice(None), *part.relative_to(box).slices)] = self._without_lost(self._scaled(stored), inside)
        return affinities

    def _scaled(self, stored: np.ndarray) -> np.ndarray:
        """Stored values as affinities from 0 to 1."""
        affinities = (stored.astype(np.float32) - np.float32(self.low)) / np.float32(self.high - self.low)
        beyond = ~((affinities >= -ROUNDING) & (affinities <= 1 + ROUNDING))  # NaN is beyond, too
        if beyond.any():
            raise UserError(
                f"{self.volume.name} holds {stored[beyond][0]}, which lies beyond {self.low:g} to {self.high:g}; say"
                " which values mean no affinity and full affinity",
                f"{self.where}.range",
            )
        return affinities.clip(0, 1)

    def missing_files(self, box: Box) -> tuple[int, int]:
        """How many files of a box of raw's voxels are not there, and of how many; of very many, the first ones."""
        part = box.intersect(Box(self.begin, self.begin + self.volume.shape))
        if not part.size:
            return 1, 1
        if self.volume.found.array.format not in IN_PLACE:
            return 0, 1
        inside = Box(part.begin - self.begin, part.end - self.begin)
        positions = [tuple(position) for position in itertools.islice(cells_of(inside, self.volume.shards), LOOKED_FOR)]
        return sum(not self._is_there(position) for position in positions), len(positions)

    def _without_lost(self, affinities: np.ndarray, box: Box) -> np.ndarray:
        """With `UNKNOWN` where the file of a chunk is not there: its voxels read as the fill value."""
        if self.volume.found.array.format not in IN_PLACE:
            return affinities
        shards = self.volume.shards
        for position in cells_of(box, shards):
            if not self._is_there(tuple(position)):
                begin = Coordinate(position) * shards
                lost = Box(begin, begin + shards).intersect(box).relative_to(box)
                affinities[(slice(None), *lost.slices)] = UNKNOWN
        return affinities

    def _is_there(self, position: tuple[int, ...]) -> bool:
        if position not in self.present:
            begin = Coordinate(position) * self.volume.shards
            try:
                self.present[position] = not self.volume.missing(Box(begin, begin + Coordinate(1, 1, 1)))
            except ValueError:  # files that are not named by positions
                self.present[position] = True
        return self.present[position]


@dataclass(frozen=True)
class StoredAffinities:
    """The affinities of a source.

    Attributes:
        arrays: of one teacher each.
        offsets: of the channels, the same in all.
    """

    arrays: tuple[StoredArray, ...]
    offsets: tuple[Offset, ...]

    def telling(self, offsets: Sequence[Offset]) -> StoredAffinities:
        """The same with channels of other offsets, each of which has one here, or its opposite has."""
        found = [channel_of(offset, self.offsets) for offset in offsets]
        shifts = tuple(
            offset if is_opposite else (0, 0, 0) for offset, (_, is_opposite) in zip(offsets, found, strict=True)
        )
        arrays = (
            replace(array, channels=tuple(array.channels[channel] for channel, _ in found), shifts=shifts)
            for array in self.arrays
        )
        return StoredAffinities(tuple(arrays), tuple(offsets))

    def require_some(self, box: Box, where: str, tell: bool = True) -> None:
        """Make sure that there is something to learn from in a region.

        Args:
            box: the region's voxels.
            where: dotted config path, for messages.
            tell: say so if some files are not there.

        Raises:
            UserError: no file of the region is there.
        """
        for array in self.arrays:
            missing, files = array.missing_files(box)
            if missing == files:
                raise UserError(
                    f"{array.volume.name} holds nothing of this region: its files are not there; predict them again",
                    where,
                )
            if missing and tell:
                logger.warning("%s: %d of %d files are not there, and teach nothing", array.volume.name, missing, files)

    def read(self, box: Box, within: Box, cache: ChunkCache) -> np.ndarray:
        """Affinities (k, z, y, x) float32 of a box of raw's voxels.

        They are `UNKNOWN` where an array says nothing, and where p + offset lies beyond `within`: training sees other
        raw there than the teacher saw.
        """
        total = self.arrays[0].read(box, cache)
        known = total >= 0
        for array in self.arrays[1:]:
            more = array.read(box, cache)
            known &= more >= 0
            total += more
        total /= len(self.arrays)
        for channel, offset in enumerate(self.offsets):
            both = within.intersect(Box(within.begin - Coordinate(offset), within.end - Coordinate(offset)))
            pairs = np.zeros(box.shape, bool)
            part = box.intersect(both)
            if part.size:
                pairs[part.relative_to(box).slices] = True
            known[channel] &= pairs
        total[~known] = UNKNOWN
        return total
