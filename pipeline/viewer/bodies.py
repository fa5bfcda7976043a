"""Pictures of the largest segments in 3D, from levels of the pyramid that are coarse enough to be read as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from funlib.geometry import Coordinate

from ..evaluation import SegmentSizes, SegmentSummary
from ..run import SEGMENTATIONS, Run
from ..volumes import Box, volume_exists
from ..volumes.readable import Readable
from .rendering import Surface, render
from .surfaces import rank_colours, surface_of

MOST_VOXELS = 4_000_000
"""Voxels that one picture is made of at most."""
TOGETHER, ALONE = 12, 6
"""Segments in the picture of all, and segments that have a picture of their own."""
WIDTH, WIDTH_ALONE = 640, 300
"""Pixels."""


@dataclass(frozen=True)
class BodyPicture:
    """A picture of segments.

    Attributes:
        segments: their ids.
        extent: of the box that is drawn around them, in nanometres, z, y, x.
        image: (h, w, 4) RGBA.
    """

    segments: tuple[int, ...]
    extent: tuple[float, float, float]
    image: np.ndarray


def body_pictures(run: Run, threshold: str, sizes: SegmentSizes) -> list[BodyPicture]:
    """The largest segments together, and then each of the largest alone; nothing where there are none.

    Args:
        run: the run.
        threshold: of the segmentation, as it is called.
        sizes: of its segments.

    Raises:
        UserError: a shard cannot be read.
    """
    levels = list(_levels(run, f"{SEGMENTATIONS}/{threshold}"))
    segments = [segment for segment in sizes["largest"] if _lies_in(segment, levels[0].shape)]
    colours = dict(zip([segment["id"] for segment in segments], rank_colours(len(segments)), strict=True))
    if not segments:
        return []
    together = [segment["id"] for segment in segments[:TOGETHER]]
    pictures = [_picture(levels, levels[0].box, {name: colours[name] for name in together}, WIDTH)]
    for segment in segments[:ALONE]:
        box = Box(Coordinate(segment["begin"]), Coordinate(segment["end"]))
        pictures.append(_picture(levels, box, {segment["id"]: colours[segment["id"]]}, WIDTH_ALONE))
    return pictures


def swatches(sizes: SegmentSizes) -> list[str]:
    """The colours of the largest segments in these pictures, as CSS."""
    colours = np.rint(rank_colours(len(sizes["largest"])) * 255).astype(int).tolist()
    return [f"rgb({red}, {green}, {blue})" for red, green, blue in colours]


def _levels(run: Run, dataset: str) -> Iterator[Readable]:
    """The array and the levels of its pyramid, the finest first."""
    yield run.open_computed(dataset)
    level = 1
    while volume_exists(run.volume, f"{dataset}/s{level}"):
        yield run.open_computed(f"{dataset}/s{level}")
        level += 1


def _lies_in(segment: SegmentSummary, shape: Sequence[int]) -> bool:
    """Whether the bounding box of a segment is one of this array."""
    spans = zip(segment["begin"], segment["end"], shape, strict=True)
    return all(begin < end <= extent for begin, end, extent in spans)


def _picture(levels: Sequence[Readable], box: Box, colours: dict[int, np.ndarray], width: int) -> BodyPicture:
    """A picture of segments in a box of the finest level's voxels."""
    volume, part = _readable_part(levels, box)
    ids = volume.read(part)
    size = np.asarray(volume.voxel_size, float)
    begin = np.asarray(volume.offset, float) + np.asarray(part.begin) * size
    end = begin + np.asarray(part.shape) * size

    def surfaces() -> Iterator[Surface]:
        for segment, colour in colours.items():
            yield surface_of(ids == np.uint64(segment), tuple(size), tuple(begin), colour)

    z, y, x = (end - begin).tolist()
    return BodyPicture(tuple(colours), (z, y, x), render(surfaces(), tuple(begin), tuple(end), width))


def _readable_part(levels: Sequence[Readable], box: Box) -> tuple[Readable, Box]:
    """The finest level that has few enough voxels in a box of the finest one's; of the coarsest, the middle."""
    for volume in levels:
        factors = [round(own / finest) for own, finest in zip(volume.voxel_size, levels[0].voxel_size, strict=True)]
        part = box.downsampled(factors).intersect(Box.of_shape(volume.shape))
        if part.size <= MOST_VOXELS:
            return volume, part
    side = int(MOST_VOXELS ** (1 / 3) + 1e-6)
    extent = Coordinate(min(e, side) for e in part.shape)
    begin = part.begin + (part.shape - extent) / 2
    return volume, Box(begin, begin + extent)
