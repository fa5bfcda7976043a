"""Arrays of a file in z, y, x order, converted to what the import stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from funlib.geometry import Coordinate

from ..errors import UserError
from ..label_ids import has_id
from ..volumes import Box
from .containers import StoredArray, read_stored


@dataclass(frozen=True)
class OrderedArray:
    """A stored array read in z, y, x order, whatever the file's order is."""

    stored: StoredArray
    order: tuple[int, int, int]

    @property
    def name(self) -> str:
        """Path of the file and of the dataset in it, for messages."""
        return self.stored.name

    @property
    def shape(self) -> Coordinate:
        """Extent in voxels."""
        return Coordinate(self.stored.array.shape[axis] for axis in self.order)

    @property
    def dtype(self) -> np.dtype:
        """Data type in the file."""
        result: np.dtype = np.dtype(self.stored.array.dtype)
        return result

    @property
    def chunks(self) -> Coordinate:
        """Voxels that can only be decoded together."""
        return Coordinate(self.stored.chunks[axis] for axis in self.order)

    @property
    def voxel_size(self) -> tuple[float, ...] | None:
        """Nanometres, order z, y, x; None if the file does not say."""
        return self._in_order(self.stored.placement.voxel_size)

    @property
    def offset(self) -> tuple[float, ...] | None:
        """Nanometres, order z, y, x; None if the file does not say."""
        return self._in_order(self.stored.placement.offset)

    def _in_order(self, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if values is None else tuple(values[axis] for axis in self.order)

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box."""
        index = [slice(0)] * 3
        for axis, part in zip(self.order, box.slices, strict=True):
            index[axis] = part
        return read_stored(self.stored.array, tuple(index), self.name).transpose(self.order)


@dataclass(frozen=True)
class ChosenArray(OrderedArray):
    """Some sections of a stored array, one after the other.

    Attributes:
        sections: (n,) their numbers in the file, ascending.
    """

    sections: np.ndarray

    @property
    def shape(self) -> Coordinate:
        """Extent in voxels of the chosen sections."""
        return Coordinate(len(self.sections), *super().shape[1:])

    def read(self, box: Box) -> np.ndarray:
        """The voxels of a box, counted in chosen sections. Every chunk is decoded once."""
        wanted = self.sections[box.begin[0] : box.end[0]]
        parts = np.split(wanted, np.flatnonzero(np.diff(wanted // self.chunks[0])) + 1)
        return np.concatenate([self._read_part(part, box) for part in parts])

    def _read_part(self, sections: np.ndarray, box: Box) -> np.ndarray:
        first, last = int(sections[0]), int(sections[-1])
        around = Box(Coordinate(first, *box.begin[1:]), Coordinate(last + 1, *box.end[1:]))
        result: np.ndarray = super().read(around)[sections - first]
        return result


@dataclass(frozen=True)
class FileReader:
    """Raw, labels and mask of a file source, read together; see `BoxReader`.

    Attributes:
        readers: by the dataset that they are.
        where: dotted path of the config section.
        unlabelled_id: the one label that may be negative; it loses its sign, as `label_ids` reads it.
    """

    readers: Mapping[str, OrderedArray]
    where: str
    unlabelled_id: int | None = None

    def read(self, box: Box) -> dict[str, np.ndarray]:
        """The voxels of a box per dataset, in the types to store."""
        return {dataset: self._converted(dataset, reader.read(box), box) for dataset, reader in self.readers.items()}

    def _converted(self, dataset: str, data: np.ndarray, box: Box) -> np.ndarray:
        if dataset == "raw":
            return data.astype(data.dtype.newbyteorder("="), copy=False)
        if dataset == "mask":
            result: np.ndarray = (data != 0).astype(np.uint8)
            return result
        negative = data < 0 if data.dtype.kind == "i" else np.zeros(data.shape, bool)
        if self.unlabelled_id is not None:
            negative &= ~has_id(data, self.unlabelled_id)
        if negative.any():
            raise UserError(
                f"labels must not be negative, but {self.readers[dataset].name} has {data[negative].min()} between"
                f" voxels {tuple(box.begin)} and {tuple(box.end)}; write 0 for background, or name the one that means"
                " 'not annotated' in targets.unlabelled_id",
                f"{self.where}.labels",
            )
        return data.astype(np.int64).view(np.uint64) if data.dtype.kind == "i" else data.astype(np.uint64)
