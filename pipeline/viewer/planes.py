"""Cut planes through the volumes of a run and picture them side by side. Reads nothing but the planes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from funlib.geometry import Coordinate
from matplotlib.image import imsave

from ..errors import UserError
from ..run import Run
from ..volumes import Box
from ..volumes.readable import Readable
from .layers import Layer, chosen_segmentation, existing_layers, shown_box
from .overlays import affinity_colours, grey, matching_colours, object_colours, overlay, stretch

LARGEST = 512
"""Extent in voxels that a picture shows at most, along each axis."""
IMAGES_SHOWN = 3
"""Of separate images so many are shown, evenly spread."""
SMALLEST_PICTURE = 384
"""Pictures with fewer pixels across are enlarged by a whole factor."""


@dataclass(frozen=True)
class Plane:
    """A plane through a volume.

    Attributes:
        name: `xy` or `xz`.
        box: what it shows, in voxels of raw; one voxel thick.
        normal: the axis that it cuts (0: z, 1: y).
        position: index of the section along that axis, counted from the first voxel of the raw volume.
    """

    name: str
    box: Box
    normal: int
    position: int


@dataclass(frozen=True)
class Panel:
    """A picture of one layer in one plane: (h, w, 3) float in [0, 1], square pixels."""

    name: str
    image: np.ndarray


def planes_of(run: Run, raw: Readable) -> list[Plane]:
    """The middle section of the shown region, and the xz plane through its centre; of separate images some of them."""
    box = shown_box(run, raw)
    middle = (box.begin + box.end) / 2
    extent = Coordinate(min(LARGEST, e) for e in box.shape)
    begin = Coordinate(max(b, m - e // 2) for b, m, e in zip(box.begin, middle, extent, strict=True))
    window = Box(begin, begin + extent)
    cuts = [("xy", 0, int(middle[0])), ("xz", 1, int(middle[1]))]
    if run.config.volumes.images:
        step = box.shape[0] / (IMAGES_SHOWN + 1)
        positions = {int(box.begin[0] + step * number) for number in range(1, IMAGES_SHOWN + 1)}
        cuts = [("xy", 0, position) for position in sorted(positions)]
    planes = []
    for name, normal, position in cuts:
        low, high = list(window.begin), list(window.end)
        low[normal], high[normal] = position, position + 1
        planes.append(Plane(name, Box(Coordinate(low), Coordinate(high)), normal, position))
    return planes


def panels_of(run: Run, plane: Plane, layers: list[Layer] | None = None) -> list[Panel]:
    """Pictures of raw, affinities, fragments, the chosen segmentation and labels in a plane, as far as they exist.

    Args:
        run: the run.
        plane: where to cut.
        layers: the layers, if they are open already.

    Raises:
        UserError: there is no raw volume, or a chunk cannot be read.
    """
    layers = existing_layers(run) if layers is None else layers
    segmentation = chosen_segmentation(run)
    wanted = [layer for layer in layers if not layer.name.startswith("segmentation") or layer.name == segmentation]
    cuts = {layer.name: _cut(layer, plane) for layer in wanted if layer.box.contains(plane.box)}
    background = grey(cuts["raw"], layers[0].contrast)
    labels = cuts.get("labels")
    voxel_size = [size for axis, size in enumerate(layers[0].volume.voxel_size) if axis != plane.normal]
    square = (voxel_size[0] / min(voxel_size), voxel_size[1] / min(voxel_size))
    panels = []
    for layer in wanted:
        if layer.name in cuts:
            image = _picture(layer, cuts[layer.name], background, labels, square, len(run.config.neighbours))
            panels.append(Panel(layer.name, image))
    return panels


def overview_picture(run: Run, path: Path) -> Path:
    """Write raw | affinities | segmentation of the middle section as one PNG.

    Raises:
        UserError: one of the three does not exist yet.
    """
    layers = existing_layers(run)
    plane = planes_of(run, layers[0].volume)[0]
    panels = {panel.name.partition(" ")[0]: panel.image for panel in panels_of(run, plane, layers)}
    for name in ("affinities", "segmentation"):
        if name not in panels:
            raise UserError(f"there are no {name} to show yet; run the block-wise stages first", str(run.volume))
    height = panels["raw"].shape[0]
    gap = np.ones((height, max(4, height // 64), 3))
    row = np.concatenate([panels["raw"], gap, panels["affinities"], gap, panels["segmentation"]], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, np.clip(row, 0, 1))
    return path


def _cut(layer: Layer, plane: Plane) -> np.ndarray:
    data = layer.read(plane.box)
    result: np.ndarray = np.take(data, 0, axis=data.ndim - 3 + plane.normal)
    return result


def _picture(
    layer: Layer,
    cut: np.ndarray,
    background: np.ndarray,
    labels: np.ndarray | None,
    square: tuple[float, float],
    neighbours: int,
) -> np.ndarray:
    """The cut of one layer with square pixels; outlines are drawn after stretching, so that they stay thin."""
    enlarge = max(1, -(-SMALLEST_PICTURE // max(background.shape[1], 1)))
    factors = (square[0] * enlarge, square[1] * enlarge)
    if layer.kind == "intensity":
        return stretch(background, factors)
    if layer.kind == "affinities":
        return stretch(affinity_colours(cut[:neighbours]), factors)
    has_labels = labels is not None and layer.name.startswith("segmentation")
    colours = matching_colours(cut, labels) if has_labels and labels is not None else object_colours(cut)
    return overlay(stretch(background, factors), stretch(cut, factors), colours)
