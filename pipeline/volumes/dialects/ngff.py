"""OME-NGFF: axes and coordinate transformations of a pyramid's levels, versions 0.1 to 0.5.

The transformations of a level are applied first, in their order, then those of the whole pyramid
(https://ngff.openmicroscopy.org/0.5/#multiscale-md). A translation places the centre of the first voxel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from ..axes import SPACE, letters_of
from ..placement import Statement, Vector
from .units import exact_vector, nanometres_per

LABEL = "OME-NGFF coordinateTransformations"


def axes_of(multiscale: Mapping[str, Any], dimensions: int) -> tuple[Any, str | None]:
    """The axes of a pyramid as they are stated, and as letters (None: not understood); versions below 0.3 have five."""
    stated = multiscale.get("axes")
    if stated is None and dimensions == 5:
        return "tczyx", "tczyx"
    return stated, letters_of(stated)


def level_of(multiscale: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """What a pyramid says about the level at a path; None if that is none of its levels."""
    for level in multiscale.get("datasets", []):
        if isinstance(level, Mapping) and str(level.get("path", "")).strip("/") == path.strip("/"):
            return level
    return None


def statements(multiscale: Mapping[str, Any], level: Mapping[str, Any], distance: int = 0) -> Iterator[Statement]:
    """Voxel size and, if there is a translation, offset of a level."""
    stated = multiscale.get("axes")
    letters = letters_of(stated)
    transformations = [
        item
        for holder in (level, multiscale)
        for item in holder.get("coordinateTransformations") or []
        if isinstance(item, Mapping)
    ]
    if not transformations:
        return
    size, offset, trouble = _applied(transformations, stated, letters or "")
    yield Statement("voxel_size", LABEL, size, trouble, distance, centred=True)
    if trouble or any(item.get("type") == "translation" for item in transformations):
        yield Statement("offset", LABEL, offset, trouble, distance, centred=True)


def _applied(
    transformations: Sequence[Mapping[str, Any]], stated: Any, letters: str
) -> tuple[Vector | None, Vector | None, str]:
    """Voxel size and offset in nanometres, order z, y, x, or why they are not understood."""
    if not set(SPACE) <= set(letters):
        return None, None, f"its axes are {stated!r}"
    size, offset = [Fraction(1)] * len(letters), [Fraction(0)] * len(letters)
    for item in transformations:
        kind = item.get("type")
        numbers = exact_vector(item.get(str(kind)))
        if kind == "identity":
            continue
        if kind not in ("scale", "translation"):
            return None, None, f"a transformation of type {kind!r}"
        if numbers is None or len(numbers) != len(letters):
            return None, None, f"a {kind} without one number for each of {len(letters)} axes"
        if kind == "scale":
            size = [a * b for a, b in zip(size, numbers, strict=True)]
            offset = [a * b for a, b in zip(offset, numbers, strict=True)]
        else:
            offset = [a + b for a, b in zip(offset, numbers, strict=True)]
    units = [nanometres_per(axis.get("unit")) if isinstance(axis, Mapping) else None for axis in stated]
    places = [letters.index(letter) for letter in SPACE]
    factors = [units[place] for place in places]
    if any(factor is None for factor in factors):
        named = [axis.get("unit") if isinstance(axis, Mapping) else None for axis in stated]
        return None, None, f"the units of its axes are {', '.join(str(named[place]) for place in places)}"
    z, y, x = (size[place] * (factor or 1) for place, factor in zip(places, factors, strict=True))
    first_z, first_y, first_x = (offset[place] * (factor or 1) for place, factor in zip(places, factors, strict=True))
    return (z, y, x), (first_z, first_y, first_x), ""
