"""Volumes of a file as an import reads them: converted to what is stored, perhaps some sections only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ..errors import UserError
from ..label_ids import has_id
from ..volumes import Box
from ..volumes.volume import Volume, WrappedArray


@dataclass(frozen=True)
class ChosenSections(WrappedArray):
    """Some sections of an array, one after the other; see `VoxelArray`.

    Attributes:
        array: all sections, (z, y, x).
        sections: (n,) the numbers of those chosen, ascending.
    """

    sections: np.ndarray

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        """Extents of the chosen sections."""
        return (len(self.sections), *self.array.shape[1:])

    @property
    @override
    def shards(self) -> tuple[int, int, int]:
        """As `chunks`."""
        return self.array.chunks

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box, counted in chosen sections. Every chunk is decoded once."""
        wanted = self.sections[box.begin[0] : box.end[0]]
        parts = np.split(wanted, np.flatnonzero(np.diff(wanted // self.chunks[0])) + 1)
        return np.concatenate([self._read_part(part, box) for part in parts])

    def _read_part(self, sections: np.ndarray, box: Box) -> np.ndarray:
        first, last = int(sections[0]), int(sections[-1])
        around = Box(Coordinate(first, *box.begin[1:]), Coordinate(last + 1, *box.end[1:]))
        result: np.ndarray = self.array.read(around)[sections - first]
        return result

    def write(self, box: Box, data: np.ndarray) -> None:
        """Files are only read."""
        raise ValueError("sections of a file are opened to be read only")


@dataclass(frozen=True)
class ConvertedVolume:
    """A volume of a file source, read in the type to store.

    Attributes:
        dataset: what it becomes: `raw`, `labels` or `mask`.
        volume: as it lies in the file.
        dtype: to store.
        unlabelled_id: the one label that may be negative.
        where: dotted path of the source's section.
    """

    dataset: str
    volume: Volume
    dtype: np.dtype
    unlabelled_id: int | None
    where: str

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box.

        Raises:
            UserError: raw is not finite, or a label is negative.
        """
        data = self.volume.read(box)
        if self.dataset == "raw":
            self._refuse_infinite(data, box)
            return data
        if self.dataset == "mask":
            result: np.ndarray = (data != 0).astype(np.uint8)
            return result
        if data.dtype.kind == "i":
            self._refuse_negative(data, box)
        return data.astype(self.dtype, copy=False)

    def _refuse_infinite(self, data: np.ndarray, box: Box) -> None:
        if data.dtype.kind == "f" and not np.isfinite(data).all():
            raise UserError(
                f"{self.volume.name} has NaN or infinite intensities between voxels {tuple(box.begin)} and"
                f" {tuple(box.end)}; write numbers in their place, 0 where nothing is",
                f"{self.where}.raw",
            )

    def _refuse_negative(self, data: np.ndarray, box: Box) -> None:
        ids = data if self.unlabelled_id is None else data[~has_id(data, self.unlabelled_id)]
        if ids.size and ids.min() < 0:
            raise UserError(
                f"labels must not be negative, but {self.volume.name} has {ids.min()} between voxels"
                f" {tuple(box.begin)} and {tuple(box.end)}; write 0 for background, or set targets.unlabelled_id to it"
                " if it means that a voxel is not annotated",
                f"{self.where}.labels",
            )
