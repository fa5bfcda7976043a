"""Affinities as the mean over mirrored and transposed raw (`predict.augment`): what a network says of a volume should
not depend on from where it looks.

A view mirrors axes and then may exchange y and x. A mirrored axis counts voxel p as -1 - p, whatever the extent of the
volume, so that all blocks agree on the pooling grid of a view, and blocks leave no seams in any of them. Each view
reads what it needs, mirrored at the volume's faces; offsets turn with it, so that every view compares the same pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from funlib.geometry import Coordinate

from ..config.networks import sees_one_section
from ..errors import UserError
from ..networks import EmbeddingNetwork, Engine
from ..volumes import Box, crop
from ..volumes.intensity import IntensityRange
from .inference import Offsets, Predictor, read_box


@dataclass(frozen=True)
class View:
    """A way to look at a volume.

    Attributes:
        mirror: which axes are mirrored.
        transpose: exchange y and x after that.
    """

    mirror: tuple[bool, bool, bool] = (False, False, False)
    transpose: bool = False

    @property
    def _axes(self) -> tuple[int, int, int]:
        return (0, 2, 1) if self.transpose else (0, 1, 2)

    def box(self, box: Box) -> Box:
        """A box of the volume as the view counts voxels."""
        spans = [(-e, -b) if m else (b, e) for b, e, m in zip(box.begin, box.end, self.mirror, strict=True)]
        return _box_of([spans[axis] for axis in self._axes])

    def box_back(self, box: Box) -> Box:
        """A box of the view as the volume counts voxels."""
        spans = [list(zip(box.begin, box.end, strict=True))[axis] for axis in self._axes]
        return _box_of([(-e, -b) if m else (b, e) for (b, e), m in zip(spans, self.mirror, strict=True)])

    def offset(self, offset: Sequence[int]) -> tuple[int, ...]:
        """The offset of a pair of voxels in the view."""
        steps = [-step if mirrored else step for step, mirrored in zip(offset, self.mirror, strict=True)]
        return tuple(steps[axis] for axis in self._axes)

    def array(self, array: np.ndarray) -> np.ndarray:
        """An array (z, y, x) of the volume as the view shows it."""
        return np.ascontiguousarray(array[self._flips].transpose(self._axes))

    def array_back(self, array: np.ndarray) -> np.ndarray:
        """An array (k, z, y, x) of the view as it lies in the volume."""
        return array.transpose(0, *(1 + axis for axis in self._axes))[(slice(None), *self._flips)]

    @property
    def _flips(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(None, None, -1 if mirrored else 1) for mirrored in self.mirror)
        return z, y, x


def _box_of(spans: Sequence[tuple[int, int]]) -> Box:
    return Box(Coordinate(begin for begin, _ in spans), Coordinate(end for _, end in spans))


def views_of(augment: str, network: EmbeddingNetwork) -> list[View]:
    """The views that a setting of `predict.augment` means. A network that sees single sections says the same of a
    volume whose sections are in the opposite order, so that only y and x are mirrored for it.
    """
    if augment == "none":
        return [View()]
    along_z = (False,) if sees_one_section(network.config) else (False, True)
    exchanged = (False, True) if augment == "flips_transpose" else (False,)
    return [
        View((z, y, x), transpose)
        for transpose, z, y, x in itertools.product(exchanged, along_z, (False, True), (False, True))
    ]


def offsets_of(augment: str, network: EmbeddingNetwork, offsets: Offsets) -> list[tuple[int, ...]]:
    """The offsets that all views compare at, each once.

    Raises:
        UserError: the network has neither plain affinities at one of them nor an embedding; says what works.
    """
    lacking = _lacking(augment, network, offsets)
    if lacking:
        fewer = next(
            (views for views in FEWER_VIEWS[augment] if not _lacking(views, network, offsets)), "other offsets"
        )
        raise UserError(
            f"a view compares at {list(lacking[0])}, where the network has no affinity; take {fewer}", "predict.augment"
        )
    return _compared(augment, network, offsets)


FEWER_VIEWS = {"flips_transpose": ("flips", "none"), "flips": ("none",), "none": ()}
"""What to take in place of a `predict.augment`, the most views first."""


def _compared(augment: str, network: EmbeddingNetwork, offsets: Offsets) -> list[tuple[int, ...]]:
    return list(dict.fromkeys(offset for view in views_of(augment, network) for offset in _turned(offsets, view)))


def _lacking(augment: str, network: EmbeddingNetwork, offsets: Offsets) -> list[tuple[int, ...]]:
    compared = _compared(augment, network, offsets)
    return [offset for offset in compared if not network.embedding_channels and not network.is_plain(offset)]


def turned_read_box(network: EmbeddingNetwork, box: Box, offsets: Offsets, views: Sequence[View]) -> Box:
    """The raw voxels that exact affinities of a box need in all views."""
    boxes = [view.box_back(read_box(network, view.box(box), _turned(offsets, view))) for view in views]
    begin = Coordinate(min(axis) for axis in zip(*(one.begin for one in boxes), strict=True))
    return Box(begin, Coordinate(max(axis) for axis in zip(*(one.end for one in boxes), strict=True)))


def _turned(offsets: Offsets, view: View) -> list[tuple[int, ...]]:
    return [view.offset(offset) for offset in offsets]


class TurnedPredictor:
    """Predicts affinities as the mean over views; used like `Predictor`.

    Args:
        network: in evaluation mode, on the device that computes.
        offsets: affinity offsets in voxels.
        views: at least one.
        engine: embeds for the network.
        intensity: what is black and white in raw.
    """

    def __init__(
        self,
        network: EmbeddingNetwork,
        offsets: Offsets,
        views: Sequence[View],
        engine: Engine | None = None,
        intensity: IntensityRange | None = None,
    ) -> None:
        self._views = [(view, Predictor(network, _turned(offsets, view), engine, intensity)) for view in views]
        self.read_box: Callable[[Box], Box] = lambda box: turned_read_box(network, box, offsets, views)

    def affinities(self, raw: np.ndarray, box: Box) -> np.ndarray:
        """Mean affinities of a box, (k, z, y, x) float32 in [0, 1].

        Args:
            raw: (z, y, x) intensities of `read_box(box)`.
            box: the voxels whose affinities are wanted.

        Raises:
            NoNumbersError: the network embeds a voxel as NaN or as infinite.
        """
        read = self.read_box(box)
        total: np.ndarray | float = 0.0
        for view, predictor in self._views:
            seen = view.box(box)
            needed = view.box_back(predictor.read_box(seen))
            shown = view.array(crop(raw, needed.relative_to(read)))
            total = total + view.array_back(predictor.affinities(shown, seen))
        return np.asarray(total / np.float32(len(self._views)), np.float32)

    def quantised(self, raw: np.ndarray, box: Box) -> np.ndarray:
        """The same as (k, z, y, x) uint8, 255 = certain; raises the same."""
        quantised: np.ndarray = np.rint(self.affinities(raw, box) * np.float32(255)).astype(np.uint8)
        return quantised
