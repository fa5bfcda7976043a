"""Pictures of the dearest errors: raw, segmentation and labels around the seam, with the two pieces in two colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from funlib.geometry import Coordinate

from ..evaluation import SegmentationError, read_errors
from ..evaluation.runs import ERRORS
from ..run import Run
from ..volumes import Box
from .layers import Layer
from .overlays import grey, overlay, stretch

SHOWN = 10
"""Errors that are pictured."""
REACH = 64
"""Voxels of the shortest side that a picture reaches from the seam, in each direction."""
PIXELS = 256
"""Least width of a picture."""
FIRST, SECOND = np.array([0.25, 0.55, 0.98]), np.array([1.0, 0.55, 0.12])
"""Colours of the two pieces, as far apart for the colour-blind as for others."""
OTHER = np.array([0.55, 0.58, 0.62])
MARK = np.array([1.0, 0.95, 0.2])


@dataclass(frozen=True)
class PicturedError:
    """An error with its pictures.

    Attributes:
        rank: 1 for the dearest.
        error: what is wrong where.
        plane: `xy`, `xz` or `yz`.
        images: by layer: raw, the segmentation if it was written, labels. (h, w, 3) float in [0, 1].
    """

    rank: int
    error: SegmentationError
    plane: str
    images: dict[str, np.ndarray]


def pictured_errors(run: Run, layers: Sequence[Layer], segmentation: str | None) -> list[PicturedError]:
    """The dearest errors that `errors.csv` lists; none before `06_evaluate.py` has run.

    Args:
        run: the run.
        layers: those that exist, raw first.
        segmentation: the layer that was scored; None if it is not written.

    Raises:
        UserError: the list is damaged, or a chunk cannot be read.
    """
    by_name = {layer.name: layer for layer in layers}
    shown = [by_name[name] for name in ("raw", segmentation, "labels") if name in by_name]
    whole = Box.of_shape(layers[0].volume.shape)
    found = []
    for rank, error in enumerate(read_errors(run.directory / ERRORS, SHOWN), 1):
        place = Coordinate(error.voxel)
        if whole.contains(Box(place, place + Coordinate(1, 1, 1))):
            found.append(_pictured(rank, error, shown))
    return found


def _pictured(rank: int, error: SegmentationError, layers: Sequence[Layer]) -> PicturedError:
    """The pictures of one error, all in the plane that shows most of both pieces."""
    raw, around = layers[0], _around(error, layers[0])
    read = {layer.name: _read(layer, around) for layer in layers}
    pieces = next((n for n in read if n.startswith("segmentation")), None) if error.kind == "split" else "labels"
    ids = error.segments if error.kind == "split" else error.labels
    here = [v - b for v, b in zip(error.voxel, around.begin, strict=True)]
    voxel_size = tuple(raw.volume.voxel_size)
    normal = _best_normal(read.get(pieces or ""), ids, here, voxel_size)
    spacing = [size for axis, size in enumerate(voxel_size) if axis != normal]
    cuts = {name: np.take(data, here[normal], axis=normal) for name, data in read.items()}
    enlarge = max(1, -(-PIXELS // max(1, round(cuts["raw"].shape[1] * spacing[1] / min(spacing)))))
    factors = (enlarge * spacing[0] / min(spacing), enlarge * spacing[1] / min(spacing))
    background = stretch(grey(cuts["raw"], raw.contrast), factors)
    mark = [round((here[axis] + 0.5) * factor) for axis, factor in zip(_plane_axes(normal), factors, strict=True)]
    images = {"raw": background.copy()}
    for name, cut in cuts.items():
        if name != "raw":
            chosen = error.labels if name == "labels" else error.segments
            images[name] = overlay(background, stretch(cut, factors), _colours(cut, chosen))
    for image in images.values():
        _draw_mark(image, mark)
    return PicturedError(rank, error, "".join("zyx"[axis] for axis in reversed(_plane_axes(normal))), images)


def _around(error: SegmentationError, raw: Layer) -> Box:
    """The voxels around the seam, a cube in nanometres, as far as raw reaches."""
    size = raw.volume.voxel_size
    reach = Coordinate(max(1, round(REACH * min(size) / own)) for own in size)
    place = Coordinate(error.voxel)
    return Box(place - reach, place + reach + Coordinate(1, 1, 1)).intersect(raw.box)


def _read(layer: Layer, box: Box) -> np.ndarray:
    """The voxels of a box of raw's voxels; 0 where the layer does not reach."""
    inside = box.intersect(layer.box)
    data = np.zeros(box.shape, layer.volume.dtype)
    if inside.size:
        data[inside.relative_to(box).slices] = layer.read(inside)
    return data


def _best_normal(
    data: np.ndarray | None, ids: tuple[int, int], here: Sequence[int], voxel_size: tuple[float, ...]
) -> int:
    """The axis to cut along: that whose plane shows most of the smaller piece, across the sections only if this shows
    much more, since planes of thick sections look coarse.
    """
    if data is None:
        return 0
    shown = []
    for axis in range(3):
        cut = np.take(data, here[axis], axis=axis)
        area = np.prod([size for other, size in enumerate(voxel_size) if other != axis])
        shown.append(min(int((cut == np.uint64(own)).sum()) for own in ids) * area)
    best = int(np.argmax(shown))
    return best if shown[best] > 2 * shown[0] else 0


def _plane_axes(normal: int) -> list[int]:
    return [axis for axis in range(3) if axis != normal]


def _colours(cut: np.ndarray, pieces: tuple[int, int]) -> dict[int, np.ndarray]:
    """The two pieces in their colours, everything else in grey."""
    colours = {int(name): OTHER for name in np.unique(cut)}
    return colours | {pieces[1]: SECOND, pieces[0]: FIRST}


def _draw_mark(image: np.ndarray, place: Sequence[int]) -> None:
    """A small cross with a gap where the seam is."""
    row, column = place
    gap, length = 4, 11
    for start, stop in ((-length, -gap), (gap + 1, length + 1)):
        image[max(0, row + start) : max(0, row + stop), max(0, column) : column + 1] = MARK
        image[max(0, row) : row + 1, max(0, column + start) : max(0, column + stop)] = MARK
