"""How far a U-Net sees: context, grid and field of view, from its pooling factors.

Every U-Net here has two convolutions of width 3 per level, pools by a factor between levels, and repeats values (or
transposes with kernel = stride) on the way up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from funlib.geometry import Coordinate

REACH = 2
"""Voxels of its level that a pair of convolutions reaches to each side."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of inputs and outputs of a network, per axis in voxels.

    Attributes:
        context: what an exact output voxel needs on each side, if the input begins and ends on the grid.
        grid: shifts of the input that the output follows.
        remainder: an input fits if its extent is this much more than a multiple of the grid.
        crop: voxels by which the output is smaller than the input, on each side.
    """

    context: Coordinate
    grid: Coordinate
    remainder: Coordinate
    crop: Coordinate


@dataclass(frozen=True)
class Level:
    """One resolution of a U-Net, per axis.

    Attributes:
        downsampling: voxels per feature.
        encoder_view, decoder_view: field of view in voxels of the features of the way down and up.
        encoder_begin, decoder_begin: low corner of the first feature, in voxels from the first voxel of the input.
    """

    downsampling: Coordinate
    encoder_view: Coordinate
    decoder_view: Coordinate
    encoder_begin: Coordinate
    decoder_begin: Coordinate


def unet_geometry(factors: Sequence[Coordinate], *, valid: bool) -> Geometry:
    """The geometry of a U-Net from its layers.

    Args:
        factors: pooling factors between the levels, finest first.
        valid: convolutions without padding; otherwise the output has the extent of the input.
    """
    scales = _scales(factors)
    grid = scales[-1]
    if not valid:
        zero = grid * 0
        return Geometry(_padding_reach(factors), grid, remainder=zero, crop=zero)
    encoder = _sum(scales[:-1], grid) * REACH
    context = encoder * 2 + grid * REACH
    return Geometry(context, grid, remainder=encoder * 2 % grid, crop=context)


def unet_levels(factors: Sequence[Coordinate], *, valid: bool) -> list[Level]:
    """Where the features of each level lie and how much they see, finest level first; arguments as `unet_geometry`."""
    scales = _scales(factors)
    dimensions = len(scales[0])
    zero = Coordinate((0,) * dimensions)
    levels = []
    for index, scale in enumerate(scales):
        down = _sum(scales[: index + 1], scale) * REACH
        up = _sum(scales[:-1], scale) * REACH + _sum(scales[index:], scale) * REACH
        per_axis = [[factor[axis] for factor in factors] for axis in range(dimensions)]
        levels.append(
            Level(
                downsampling=scale,
                encoder_view=Coordinate(_encoder_view(axis_factors[:index]) for axis_factors in per_axis),
                decoder_view=Coordinate(_decoder_view(axis_factors, index, valid) for axis_factors in per_axis),
                encoder_begin=down if valid else zero,
                decoder_begin=up if valid else zero,
            )
        )
    return levels


def round_down(value: Coordinate, grid: Coordinate) -> Coordinate:
    """The largest multiple of the grid that is not larger, per axis."""
    return Coordinate(v // g * g for v, g in zip(value, grid, strict=True))


def round_up(value: Coordinate, grid: Coordinate) -> Coordinate:
    """The smallest multiple of the grid that is not smaller, per axis."""
    return Coordinate(-(-v // g) * g for v, g in zip(value, grid, strict=True))


def _scales(factors: Sequence[Coordinate]) -> list[Coordinate]:
    scales = [Coordinate((1,) * len(factors[0]))]
    for factor in factors:
        scales.append(scales[-1] * factor)
    return scales


def _sum(scales: Sequence[Coordinate], like: Coordinate) -> Coordinate:
    return sum(scales, like * 0)


def _padding_reach(factors: Sequence[Coordinate]) -> Coordinate:
    """How deep the padding at an end that lies on the grid reaches into the output."""
    pair = Coordinate((REACH,) * len(factors[0]))
    reach = pair
    for factor in factors:
        reach = round_up(reach, factor) / factor + pair
    for factor in reversed(factors):
        reach = reach * factor + pair
    return reach


def _encoder_view(factors: Sequence[int]) -> int:
    low, high = _down(0, 0, factors)
    return high - low + 1


def _decoder_view(factors: Sequence[int], level: int, valid: bool) -> int:
    """The largest field of view of a decoder feature along one axis; it depends on where the feature lies."""
    period = 1
    for factor in factors[level:]:
        period *= factor
    return max(_decoder_span(feature, factors, level, valid) for feature in range(period))


def _decoder_span(feature: int, factors: Sequence[int], level: int, valid: bool) -> int:
    shift = REACH if valid else 0
    low = high = feature
    for factor in factors[level:]:
        low, high = (low - REACH + shift) // factor, (high + REACH + shift) // factor
    low, high = _down(low, high, factors)
    return high - low + 1


def _down(low: int, high: int, factors: Sequence[int]) -> tuple[int, int]:
    """The voxels that the features low..high of the way down see, after as many poolings as there are factors."""
    low, high = low - REACH, high + REACH
    for factor in reversed(factors):
        low, high = low * factor - REACH, (high + 1) * factor - 1 + REACH
    return low, high
