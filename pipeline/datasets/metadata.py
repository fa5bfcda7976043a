"""Voxel size, offset and axes as the attributes of a file state them, in any of the customary ways."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from funlib.geometry import Coordinate

from ..errors import UserError

NANOMETRES: Mapping[str, float] = {
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometers": 1.0,
    "nanometre": 1.0,
    "um": 1e3,
    "µm": 1e3,
    "μm": 1e3,
    "micron": 1e3,
    "microns": 1e3,
    "micrometer": 1e3,
    "micrometers": 1e3,
    "micrometre": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
}
"""Length units that files use, in nanometres."""

VOXEL_SIZE_KEYS: Mapping[str, float] = {
    "voxel_size_nm": 1.0,
    "voxel_size": 0.0,
    "resolution": 0.0,
    "pixelResolution": 0.0,
    "element_size_um": 1e3,
}
"""Attributes that hold a voxel size, and their unit in nanometres; 0 where a `units` attribute may say it (default:
nm)."""


@dataclass(frozen=True)
class Placement:
    """Where the voxels lie, as far as a file states it. Vectors are in the order of the stored array's axes.

    Attributes:
        voxel_size: nanometres; None where the file does not say.
        offset: nanometres; None where the file does not say.
        axes: one letter per stored axis, for example `zyx`; None where the file does not say.
    """

    voxel_size: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None
    axes: str | None = None

    def or_else(self, other: Placement) -> Placement:
        """This placement, completed by another where it is silent."""
        return Placement(self.voxel_size or other.voxel_size, self.offset or other.offset, self.axes or other.axes)


def read_placement(attributes: Mapping[str, Any], name: str, reverse: bool = False) -> Placement:
    """The placement that a set of attributes states.

    Args:
        attributes: of a dataset, or of a group above it.
        name: file and dataset, for messages.
        reverse: vectors are stored in the opposite order of the array's axes (N5).

    Raises:
        UserError: the attributes contradict one another or cannot be understood.
    """
    attributes = {key: _plain(value) for key, value in attributes.items()}
    units = _unit_factor(attributes.get("units", attributes.get("unit")), name)
    sizes = {
        key: _voxel_size(attributes[key], factor or units, f"{name}, attribute {key}")
        for key, factor in VOXEL_SIZE_KEYS.items()
        if attributes.get(key) is not None
    }
    if len(set(sizes.values())) > 1:
        stated = ", ".join(f"{key} {list(size)} nm" for key, size in sizes.items())
        raise UserError(f"the attributes state different voxel sizes ({stated}); set voxel_size in the config", name)
    voxel_size = next(iter(sizes.values()), None)
    offset = attributes.get("offset")
    if offset is not None:
        offset = _vector(offset, units, f"{name}, attribute offset")
    axes = _axes(attributes.get("axes", attributes.get("axis_names")))
    if reverse:
        voxel_size = voxel_size and voxel_size[::-1]
        offset = offset and offset[::-1]
        axes = axes and axes[::-1]
    return Placement(voxel_size, offset, axes)


def zyx_order(axes: str, where: str) -> tuple[int, int, int]:
    """Which stored axis is z, which y, which x; n, the number of separate images, stands for z.

    Raises:
        UserError: `axes` is no arrangement of the letters z (or n), y, x.
    """
    letters = axes.lower().replace("n", "z")
    if sorted(letters) != ["x", "y", "z"]:
        raise UserError(f"axes {axes!r} must be an arrangement of z, y and x, for example zyx or xyz", where)
    return letters.index("z"), letters.index("y"), letters.index("x")


def whole_nanometres(values: Sequence[float], what: str, where: str, config_path: str) -> Coordinate:
    """A vector of nanometres as integers.

    Raises:
        UserError: a value is not (nearly) a whole number.
    """
    rounded = [round(value) for value in values]
    if any(abs(value - whole) > 1e-3 for value, whole in zip(values, rounded, strict=True)):
        raise UserError(
            f"the {what} {list(values)} is not in whole nanometres; set {what.replace(' ', '_')} in the config to"
            f" rounded values ({where})",
            config_path,
        )
    return Coordinate(rounded)


def length_in_nanometres(unit: str | None) -> float | None:
    """How many nanometres a unit of length has; None if the unit is not known."""
    return None if unit is None else NANOMETRES.get(unit.strip().lower().replace("\\u00b5", "µ"))


def _plain(value: Any) -> Any:
    """Attributes as plain Python values (HDF5 hands out numpy arrays and bytes)."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _voxel_size(value: Any, factor: float, name: str) -> tuple[float, ...]:
    if isinstance(value, Mapping):  # pixelResolution of N5: {"dimensions": [...], "unit": "nm"}
        factor = _unit_factor(value.get("unit"), name)
        value = value.get("dimensions")
    size = _vector(value, factor, name)
    if min(size) <= 0:
        raise UserError(
            f"{list(size)} is no voxel size: every component must be above 0; set voxel_size in the config", name
        )
    return size


def _vector(value: Any, factor: float, name: str) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else []
    if len(numbers) != 3 or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise UserError(f"{value!r} is no vector of three numbers; correct it, or set the value in the config", name)
    return tuple(round(float(n) * factor, 6) for n in numbers)


def _unit_factor(units: Any, name: str) -> float:
    named = {str(unit) for unit in (units if isinstance(units, list) else [units]) if unit not in (None, "")}
    if not named:
        return 1.0
    factors = {length_in_nanometres(unit) for unit in named}
    if len(factors) != 1 or None in factors:
        raise UserError(f"the units {', '.join(sorted(named))} are not understood; set voxel_size in the config", name)
    return factors.pop() or 1.0


def _axes(value: Any) -> str | None:
    if value is None:
        return None
    letters = [item.get("name", "") if isinstance(item, Mapping) else str(item) for item in value]
    return "".join(letters).lower() or None
