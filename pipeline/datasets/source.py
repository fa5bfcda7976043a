"""What every kind of source looks like to the import: a shape, a place in the world, and boxes of voxels on demand."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from funlib.geometry import Coordinate

from ..volumes import Box
from ..volumes.sources import Source


@dataclass(frozen=True)
class OpenSource:
    """A source that is ready to be read.

    Attributes:
        shape: extent in voxels, common to all its datasets.
        voxel_size, offset: nanometres; fractions are allowed.
        dtypes: type to store, per dataset that the source has (`raw`, perhaps `labels`, `mask`).
        chunks: voxels of the source that can only be decoded together.
        others: datasets with other voxels: labels or a mask that cover a part of raw, or are coarser.
        source: its volumes as they lie in files, if it has any.
    """

    shape: Coordinate
    voxel_size: tuple[float, float, float]
    offset: tuple[float, float, float]
    dtypes: Mapping[str, np.dtype]
    reader: BoxReader
    chunks: Coordinate = field(default_factory=lambda: Coordinate(1, 1, 1))
    others: tuple[OpenSource, ...] = ()
    source: Source | None = None


class BoxReader(Protocol):
    """Reads all datasets of a source at once."""

    def read(self, box: Box) -> dict[str, np.ndarray]:
        """The voxels of a box per dataset, in the types to store.

        Raises:
            UserError: the voxels cannot be what the dataset should hold (NaN, negative labels), or cannot be read.
        """


class SourceOpener(Protocol):
    """How one kind of source is identified and opened."""

    def identity(self) -> dict[str, Any] | None:
        """What tells whether the data changed (sizes, times); None if the data are not there (any more)."""

    def open(self) -> AbstractContextManager[OpenSource]:
        """Open the source for reading; files are closed at the end of the context.

        Raises:
            UserError: something about the source is missing or ambiguous.
        """
