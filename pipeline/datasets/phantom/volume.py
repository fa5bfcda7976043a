"""The phantom: what an electron microscope would show of the neurites, and which neurite each voxel belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from funlib.geometry import Coordinate

from ...config import PhantomSource
from ...volumes import Box
from ..source import BoxReader, OpenDataset, OpenSource
from . import hashing
from .neurites import Cells, Neurites
from .noise import smooth_noise
from .organelles import Organelles

RECIPE = 1
"""Version of the phantom: to be raised whenever the same config section gives other voxels."""
CYTOPLASM = 0.66
"""Brightness of the cytoplasm; 0 is black, 1 is white."""
CYTOPLASM_SPREAD = 0.05
"""Largest deviation of a neurite's cytoplasm from it."""
MEMBRANE = 0.20
"""Brightness in the middle of a membrane."""
MITOCHONDRION = 0.46
"""Brightness inside a mitochondrion."""
ORGANELLE_RIM = 10.0
"""Width of the membrane of an organelle in nanometres."""
TEXTURE = 0.28
"""Bound of the cytoplasm's texture; typical values are a fifth of it."""
TEXTURE_PITCH = (40.0, 26.0, 26.0)
"""Grain of the texture along z, y and x in nanometres."""
ILLUMINATION = 0.15
"""Bound of slow changes of brightness within a section."""
DARK_CONTRAST, DARK_BRIGHTNESS = 0.45, -0.16
"""Contrast factor and brightness shift of a dark section."""
SECTION_CONTRAST, SECTION_BRIGHTNESS = 0.06, 0.02
"""Largest deviations of the contrast factor and of the brightness of an ordinary section."""

_TEXTURE, _ILLUMINATION, _CRISTAE, _CYTOPLASM, _VESICLES, _NOISE, _MISSING, _DARK, _CONTRAST, _BRIGHTNESS = range(
    64, 74
)


@dataclass(frozen=True)
class Phantom:
    """A synthetic volume of any size, computed box by box; a pure function of its config section.

    Attributes:
        source: the config section.
    """

    source: PhantomSource

    def read(self, box: Box) -> dict[str, np.ndarray]:
        """The voxels of a box inside the volume, computed in pieces of at most `block_shape` voxels.

        Returns:
            As `compute`.
        """
        return {"raw": self.read_raw(box), "labels": self.read_labels(box)}

    def read_raw(self, box: Box) -> np.ndarray:
        """The intensities of a box inside the volume; see `read`."""
        raw = np.empty(box.shape, np.uint8)
        for piece in box.split(self.source.block_shape):
            raw[piece.relative_to(box).slices] = self._image(piece, self._positions(piece), self.cells(piece))
        return raw

    def read_labels(self, box: Box) -> np.ndarray:
        """The neurites of a box inside the volume; see `read`."""
        labels = np.empty(box.shape, np.uint64)
        for piece in box.split(self.source.block_shape):
            labels[piece.relative_to(box).slices] = self._labels(self.cells(piece))
        return labels

    def compute(self, box: Box) -> dict[str, np.ndarray]:
        """The voxels of a box inside the volume, computed at once.

        Returns:
            raw: (z, y, x) uint8.
            labels: (z, y, x) uint64, the neurite's id from 1; every voxel belongs to a neurite, membranes included.
        """
        cells = self.cells(box)
        return {"raw": self._image(box, self._positions(box), cells), "labels": self._labels(cells)}

    def cells(self, box: Box) -> Cells:
        """The nearest neurite of each voxel of a box, which may reach beyond the volume."""
        return self._neurites.cells(*self._positions(box))

    def _positions(self, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Middles of the voxels along z, y and x in nanometres."""
        z, y, x = (
            (np.arange(begin, end) + 0.5) * size
            for begin, end, size in zip(box.begin, box.end, self.source.voxel_size, strict=True)
        )
        return z, y, x

    @property
    def _neurites(self) -> Neurites:
        return Neurites(self.source.seed, self.source.neurite_spacing)

    def _labels(self, cells: Cells) -> np.ndarray:
        height, width = (n * size for n, size in zip(self.source.shape[1:], self.source.voxel_size[1:], strict=True))
        first_row, _ = self._neurites.lattice_range(0, height)
        first_column, end_column = self._neurites.lattice_range(0, width)
        row, column = cells.centres.rows - first_row, cells.centres.columns - first_column
        ids = (1 + row * (end_column - first_column) + column).astype(np.uint64)
        result: np.ndarray = ids[cells.nearest]
        return result

    def _image(self, box: Box, positions: tuple[np.ndarray, np.ndarray, np.ndarray], cells: Cells) -> np.ndarray:
        image = self._tissue(box, positions, cells)
        contrast, brightness = self._sections(box)
        image -= np.float32(0.5)
        image *= contrast[:, None, None]
        image += (brightness + np.float32(0.5))[:, None, None]
        voxels = [np.arange(begin, end) for begin, end in zip(box.begin, box.end, strict=True)]
        noise = hashing.gaussian(self.source.seed, _NOISE, voxels[0][:, None, None], voxels[1][:, None], voxels[2])
        noise *= np.float32(self.source.noise)
        image += noise
        image *= 255
        np.clip(np.rint(image, out=image), 0, 255, out=image)
        raw = image.astype(np.uint8)
        raw[self._draw(_MISSING, box) < self.source.missing_sections] = 0
        return raw

    def _tissue(self, box: Box, positions: tuple[np.ndarray, np.ndarray, np.ndarray], cells: Cells) -> np.ndarray:
        """Brightness of neurites, organelles and membranes, (z, y, x) float32, without noise and section defects."""
        seed, spacing = self.source.seed, self.source.neurite_spacing
        z, y, x = positions
        centres = cells.centres
        own = CYTOPLASM + CYTOPLASM_SPREAD * hashing.symmetric(seed, _CYTOPLASM, centres.rows, centres.columns)
        texture = smooth_noise(seed, _TEXTURE, positions, TEXTURE_PITCH)
        image: np.ndarray = own.astype(np.float32)[cells.nearest]
        image += np.float32(TEXTURE) * texture
        image += np.float32(ILLUMINATION) * smooth_noise(seed, _ILLUMINATION, positions, (120.0, 1500.0, 1500.0))

        inside = cells.distance_to_membrane - np.float32(self.source.membrane_width)
        organelles = Organelles(seed, spacing, self.source.organelles)
        if self.source.organelles > 0:
            carries = hashing.uniform(seed, _VESICLES, centres.rows, centres.columns) < 0.5 * self.source.organelles
            vesicle = organelles.vesicle_depth(np.arange(box.begin[0], box.end[0]), y, x)
            vesicle[~carries[cells.nearest]] = -spacing
            _paint_rim(image, np.minimum(vesicle, inside), 0.42)
            depth = np.minimum(organelles.mitochondrion_depth(z, cells), inside)
            cristae = smooth_noise(seed, _CRISTAE, positions, (120.0, 18.0, 18.0))
            _blend(image, _step(depth, 0.0, 4.0), np.float32(MITOCHONDRION) + np.float32(0.22) * cristae)
            _paint_rim(image, depth, 0.28)
        membrane = 1 - _step(
            cells.distance_to_membrane, 0.25 * self.source.membrane_width, 0.75 * self.source.membrane_width
        )
        _blend(image, membrane, np.float32(MEMBRANE) + np.float32(0.3 * TEXTURE) * texture)
        return image

    def _sections(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Contrast factor and brightness shift of each section, (z,) float32."""
        dark = self._draw(_DARK, box) < self.source.dark_sections
        contrast = 1 + SECTION_CONTRAST * (2 * self._draw(_CONTRAST, box) - 1)
        brightness = SECTION_BRIGHTNESS * (2 * self._draw(_BRIGHTNESS, box) - 1)
        contrast = np.where(dark, DARK_CONTRAST, contrast)
        brightness = np.where(dark, DARK_BRIGHTNESS, brightness)
        return contrast.astype(np.float32), brightness.astype(np.float32)

    def _draw(self, stream: int, box: Box) -> np.ndarray:
        return hashing.uniform(self.source.seed, stream, np.arange(box.begin[0], box.end[0]))


@dataclass(frozen=True)
class PhantomOpener:
    """Opens the phantom like any other source; see `pipeline.datasets.source`."""

    source: PhantomSource

    def identity(self) -> dict[str, Any] | None:
        """The phantom is determined by its config section and by this version of its recipe."""
        return {"recipe": RECIPE}

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        """The phantom as a source of `raw` and `labels`."""
        phantom = Phantom(self.source)

        def dataset(dtype: type[np.generic], read: BoxReader) -> OpenDataset:
            shape, voxel_size = Coordinate(self.source.shape), self.source.voxel_size
            return OpenDataset(shape, voxel_size, (0.0, 0.0, 0.0), np.dtype(dtype), read)

        yield OpenSource(
            {"raw": dataset(np.uint8, phantom.read_raw), "labels": dataset(np.uint64, phantom.read_labels)}
        )


def _step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """A smooth step from 0 below `low` to 1 above `high`."""
    t = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    result: np.ndarray = t * t * (3 - 2 * t)
    return result


def _blend(image: np.ndarray, share: np.ndarray, colour: np.ndarray) -> None:
    """Replace the share of each voxel's brightness, in place."""
    colour = colour - image
    colour *= share
    image += colour


def _paint_rim(image: np.ndarray, depth: np.ndarray, brightness: float) -> None:
    """Draw the membrane of an organelle just below its surface, in place."""
    distance = np.abs(depth - np.float32(ORGANELLE_RIM / 2))
    _blend(
        image,
        1 - _step(distance, ORGANELLE_RIM / 4, ORGANELLE_RIM * 0.75),
        np.float32(brightness) * np.ones_like(image),
    )
