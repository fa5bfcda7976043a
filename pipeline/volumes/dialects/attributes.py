"""Attributes of arrays and groups: funlib, CREMI, n5-viewer, COSEM, Paintera, neuroglancer's N5.

Vectors are in the order of the stored axes, or the other way round in N5. What is said about the finest level of a
pyramid is multiplied by the `downsamplingFactors` of the level. Arrays of ilastik and vigra name their axes in
`axistags`, HDF5's own dimension scales in `DIMENSION_LABELS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..axes import SPACE, letters_of
from ..placement import Quantity, Statement, Vector
from .units import exact_vector, nanometres_per, plain

OF_THE_ARRAY: Mapping[str, str | None] = {"voxel_size_nm": "nm", "voxel_size": None, "element_size_um": "um"}
"""Attributes that hold the voxel size of the array itself, and their unit; None where `units` may say it."""
OF_THE_FINEST: Mapping[str, str | None] = {"resolution": None, "pixelResolution": None}
"""Attributes that hold the voxel size of level 0, if the level has `downsamplingFactors`."""
_FACTORS = ("scales", "downsamplingFactors")
"""Attributes of groups that hold the factors of all levels."""

_LEVEL = re.compile(r"^s?(\d+)$")


@dataclass(frozen=True)
class Said:
    """The attributes of one array or group, and how to read vectors among them.

    Attributes:
        attributes: plain values.
        letters: of the array's axes, C order.
        reverse: vectors list the axes the other way round (N5).
        holder: whose attributes they are, for people; empty for the array's own.
        distance: groups between them and the array.
        factors: of the array's level to the finest, z, y, x; None if nothing says them.
        coarser: the name of the array's level, if it is not the finest and nothing says its factors.
    """

    attributes: Mapping[str, Any]
    letters: str
    reverse: bool = False
    holder: str = ""
    distance: int = 0
    factors: Vector | None = None
    coarser: str = ""

    def statements(self) -> Iterator[Statement]:
        """Everything that is said about voxel size and offset."""
        default = self.attributes.get("units", self.attributes.get("unit"))
        for key, unit in (*OF_THE_ARRAY.items(), *OF_THE_FINEST.items()):
            value = self.attributes.get(key)
            if value is not None:
                if self.coarser and key in OF_THE_FINEST:
                    trouble = f"nothing says how much coarser {self.coarser} is than the finest level"
                    yield Statement("voxel_size", self._label(key), None, trouble, self.distance)
                    continue
                factors = self.factors if key in OF_THE_FINEST else None
                yield self._statement("voxel_size", key, value, unit or default, factors)
        if self.attributes.get("offset") is not None:
            yield self._statement("offset", "offset", self.attributes["offset"], default, None)
        transform = self.attributes.get("transform")
        if isinstance(transform, Mapping):
            yield from self._transform(transform)

    def _statement(self, quantity: Quantity, key: str, value: Any, units: Any, factors: Vector | None) -> Statement:
        if isinstance(value, Mapping):  # pixelResolution of n5-viewer: {"dimensions": [...], "unit": "um"}
            units = value.get("unit", units)
            value = value.get("dimensions")
        found, trouble = in_nanometres(value, units, self.letters, self.reverse)
        if found is not None and factors is not None:
            found = times(found, factors)
        return Statement(quantity, self._label(key), found, trouble, self.distance)

    def _transform(self, transform: Mapping[str, Any]) -> Iterator[Statement]:
        """COSEM's attribute: scale and translation of named axes."""
        letters = letters_of(transform.get("axes")) or ""
        quantities: tuple[tuple[str, Quantity], ...] = (("scale", "voxel_size"), ("translate", "offset"))
        for key, quantity in quantities:
            if transform.get(key) is None:
                continue
            found, trouble = None, f"its axes are {transform.get('axes')!r}"
            if set(SPACE) <= set(letters):
                found, trouble = in_nanometres(transform[key], transform.get("units"), letters)
            centred = quantity == "offset"
            label = self._label(f"transform.{key}")
            yield Statement(quantity, label, found, trouble, self.distance, centred=centred)

    def _label(self, key: str) -> str:
        return f"attribute {key}" + (f" of {self.holder}" if self.holder else "")


def stated_axes(attributes: Mapping[str, Any], reverse: bool) -> Iterator[tuple[str, Any, str | None]]:
    """Axes that attributes name: which attribute, its value, and the letters in C order (None: not understood)."""
    for key in ("axes", "axis_names"):
        if attributes.get(key) is not None:
            letters = letters_of(attributes[key])
            yield key, attributes[key], letters[::-1] if letters and reverse else letters
    for key in ("_ARRAY_DIMENSIONS", "dimension_names"):
        letters = letters_of(attributes.get(key))
        if letters is not None:  # other names are no names of axes in space, but not wrong either
            yield key, attributes[key], letters
    labels = attributes.get("DIMENSION_LABELS")
    if (letters := letters_of(labels)) is not None:
        yield "the labels of its dimensions", labels, letters
    if (letters := _of_axistags(attributes.get("axistags"))) is not None:
        yield "axistags", letters, letters
    transform = attributes.get("transform")
    if isinstance(transform, Mapping) and transform.get("axes") is not None:
        letters = letters_of(transform["axes"])
        yield (
            "transform.axes",
            transform["axes"],
            letters[::-1] if letters and transform.get("ordering") == "F" else letters,
        )


def _of_axistags(tags: Any) -> str | None:
    """The axes that vigra's JSON names, which ilastik stores with its arrays; None if it names others or none."""
    try:
        axes = json.loads(tags)["axes"] if isinstance(tags, str) else None
        return None if axes is None else letters_of([axis["key"] for axis in axes])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def in_nanometres(value: Any, units: Any, letters: str, reverse: bool = False) -> tuple[Vector | None, str]:
    """A vector as nanometres in the order z, y, x, and why it is not understood, if it is not.

    Args:
        value: three numbers, or one for each axis.
        units: one, or one for each number; None for nanometres, as is customary where nobody names a unit.
        letters: of the axes, in C order.
        reverse: the vector lists them the other way round.
    """
    numbers = exact_vector(plain(value))
    if numbers is None:
        return None, f"{value!r} is no vector of numbers"
    per = units if isinstance(units, list) and len(units) == len(numbers) else [_one(units)] * len(numbers)
    entries = list(zip(numbers, per, strict=True))
    entries = entries[::-1] if reverse else entries
    spatial = [letter for letter in letters if letter in SPACE]
    if len(entries) == len(letters):
        entries = [entry for entry, letter in zip(entries, letters, strict=True) if letter in SPACE]
    elif len(entries) != len(spatial):
        return None, f"{len(numbers)} numbers for an array of {len(letters)} axes"
    placed: dict[str, Fraction] = {}
    for (number, unit), letter in zip(entries, spatial, strict=True):
        factor = Fraction(1) if unit in (None, "") else nanometres_per(unit)
        if factor is None and number != 0:
            return None, f"the unit {unit!r} is not known"
        placed[letter] = number * (factor or 1)
    return (placed["z"], placed["y"], placed["x"]), ""


def own_factors(own: Mapping[str, Any], letters: str, reverse: bool) -> Vector | None:
    """How much coarser than the finest an array says that it is, z, y, x; None if it does not.

    Args:
        own: attributes of the array.
        letters: of the axes, C order.
        reverse: vectors list the axes the other way round (N5).
    """
    value = own.get("downsamplingFactors")
    return None if value is None else in_nanometres(value, None, letters, reverse)[0]


def factors_of_groups(groups: Sequence[Mapping[str, Any]], name: str, letters: str, reverse: bool) -> Vector | None:
    """How much coarser than the finest the groups around an array say that it is, z, y, x; None if none does.

    Args:
        groups: attributes of the groups, the nearest first; BigDataViewer says it two groups above the level.
        name: of the array, for example `s1`.
        letters, reverse: see `own_factors`.
    """
    found = _LEVEL.match(name)
    for group in groups if found else ():
        for key in _FACTORS:
            levels = group.get(key)
            if found and isinstance(levels, list) and len(levels) > int(found.group(1)):
                return in_nanometres(levels[int(found.group(1))], None, letters, reverse)[0]
    return None


def is_coarser_level(name: str, reverse: bool) -> bool:
    """Whether an array of N5 is called like a level of a pyramid that is not the finest, for example `s1`."""
    found = _LEVEL.match(name)
    return reverse and found is not None and name.startswith("s") and int(found.group(1)) > 0


def times(first: Vector, other: Vector) -> Vector:
    """The product, component by component."""
    z, y, x = (a * b for a, b in zip(first, other, strict=True))
    return z, y, x


def _one(units: Any) -> Any:
    """The one unit of a list in which all are the same; otherwise a text that is no unit."""
    if not isinstance(units, list):
        return units
    named = {str(unit) for unit in units if unit not in (None, "")}
    return named.pop() if len(named) == 1 else (", ".join(sorted(named)) or None)
