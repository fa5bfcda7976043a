"""The stem of a network: neighbouring voxels enter as the channels of one, and its head gives the embeddings of all.

At full resolution a small network has few channels, which fill a vector unit by a quarter, and most of its time goes
there. With a stem of 2 x 2 pixels it computes on a quarter of the places (space to depth, as in Shi et al., CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from funlib.geometry import Coordinate

from .base import Tap
from .geometry import Geometry


def fold(voxels: torch.Tensor, stem: Sequence[int]) -> torch.Tensor:
    """Images (B, C, Y, X) or volumes (B, C, Z, Y, X) to the same with stem-fold channels and so much smaller extents.

    Args:
        voxels: extents are multiples of the stem.
        stem: (y, x) or (z, y, x) in voxels, with y as x.
    """
    if len(stem) == 2:
        return F.pixel_unshuffle(voxels, stem[-1])
    sections = voxels.unflatten(2, (-1, stem[0])).movedim(1, 2)  # (B, Z', C, z, Y, X)
    return F.pixel_unshuffle(sections.flatten(2, 3), stem[-1]).movedim(2, 1)


def unfold(embeddings: torch.Tensor, stem: Sequence[int]) -> torch.Tensor:
    """What the head gives, (B, channels, *size), as the embeddings of all voxels, (B, D, *size of the voxels).

    The channels count, from the slowest to the fastest, the stem's sections, the D dimensions, its rows and columns.
    """
    if len(stem) == 2:
        return F.pixel_shuffle(embeddings, stem[-1])
    sections = F.pixel_shuffle(embeddings.movedim(1, 2), stem[-1])  # (B, Z', z * D, Y, X)
    volume: torch.Tensor = sections.unflatten(2, (stem[0], -1)).flatten(1, 2).movedim(1, 2)
    return volume


def coarser(geometry: Geometry, stem: Sequence[int]) -> Geometry:
    """The geometry in voxels of a network that counts places of a stem."""
    return Geometry(
        *(value * Coordinate(stem) for value in (geometry.context, geometry.grid, geometry.remainder, geometry.crop))
    )


def coarser_tap(tap: Tap, stem: Sequence[int]) -> Tap:
    """A tap in voxels of a network that counts places of a stem."""
    return replace(
        tap,
        downsampling=tap.downsampling * Coordinate(stem),
        field_of_view=tap.field_of_view * Coordinate(stem),
        begin=tap.begin * Coordinate(stem),
    )
