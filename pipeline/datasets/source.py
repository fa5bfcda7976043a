"""What every kind of source looks like to the import: datasets with a shape, a place in the world, boxes on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from funlib.geometry import Coordinate

from ..volumes import Box
from ..volumes.sources import Source

BoxReader = Callable[[Box], np.ndarray]
"""Reads the voxels of a box, in the type to store.

Raises:
    UserError: the voxels cannot be what the dataset should hold (NaN, negative labels), or cannot be read.
"""


@dataclass(frozen=True)
class OpenDataset:
    """Raw, labels or mask of a source, ready to be read.

    Attributes:
        shape: extent in voxels.
        voxel_size, offset: nanometres; fractions are allowed.
        dtype: type to store.
        read: the voxels of a box, as long as the source is open.
        chunks: voxels of the source that can only be decoded together.
    """

    shape: Coordinate
    voxel_size: tuple[float, float, float]
    offset: tuple[float, float, float]
    dtype: np.dtype
    read: BoxReader = field(repr=False)
    chunks: Coordinate = field(default_factory=lambda: Coordinate(1, 1, 1))


@dataclass(frozen=True)
class OpenSource:
    """A source that is ready to be read.

    Attributes:
        datasets: those that it has, by name: `raw`, perhaps `labels`, `mask`.
        source: its volumes as they lie in files, if it has any.
    """

    datasets: Mapping[str, OpenDataset]
    source: Source | None = None


class SourceOpener(Protocol):
    """How one kind of source is identified and opened."""

    def identity(self) -> dict[str, Any] | None:
        """What tells whether the data changed (sizes, times); None if the data are not there (any more)."""

    def open(self) -> AbstractContextManager[OpenSource]:
        """Open the source for reading; files are closed at the end of the context.

        Raises:
            UserError: something about the source is missing or ambiguous.
        """
