"""TIFF: voxel sizes as OME-XML and ImageJ write them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from ..placement import Statement
from .units import exact, nanometres_per

DIGITS = 7
"""Of a resolution that ImageJ stored as a ratio of whole numbers: further ones are noise."""


def ome_statements(xml: str | None) -> Iterator[Statement]:
    """The voxel size in OME-XML, if it says all three extents; without a unit they are micrometres, as OME defines."""
    pixels = ElementTree.fromstring(xml).find(".//{*}Pixels") if xml else None
    if pixels is None or any(pixels.get(f"PhysicalSize{axis}") is None for axis in "ZYX"):
        return
    sizes, units = [], []
    for axis in "ZYX":
        units.append(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        text = pixels.get(f"PhysicalSize{axis}", "")
        per = nanometres_per(units[-1])
        try:
            sizes.append(None if per is None else Fraction(text) * per)
        except ValueError:
            sizes.append(None)
    z, y, x = sizes
    known = None if z is None or y is None or x is None else (z, y, x)
    yield Statement("voxel_size", "OME-XML, PhysicalSize", known, f"its units are {', '.join(units)}")


def imagej_statements(
    metadata: Mapping[str, Any] | None, y_resolution: tuple[int, int] | None, x_resolution: tuple[int, int] | None
) -> Iterator[Statement]:
    """The voxel size as ImageJ writes it, if it names a unit and a spacing.

    Args:
        metadata: of the ImageJ description: `unit` of x; `yunit` and `zunit` where they differ; `spacing` along z.
        y_resolution, x_resolution: pixels per unit, numerator and denominator.
    """
    told = metadata or {}
    unit, spacing = told.get("unit"), told.get("spacing")
    if unit in (None, "", "pixel", "pixels") or spacing is None:
        return
    units = (told.get("zunit", unit), told.get("yunit", unit), unit)
    per = [nanometres_per(name) for name in units]
    extents = (exact(spacing), _extent(y_resolution), _extent(x_resolution))
    z, y, x = (None if a is None or b is None else _rounded(a * b) for a, b in zip(extents, per, strict=True))
    known = None if z is None or y is None or x is None else (z, y, x)
    trouble = f"its units are {', '.join(map(str, units))}; its resolutions {y_resolution}, {x_resolution}"
    yield Statement("voxel_size", "ImageJ's description", known, trouble)


def _extent(per_unit: tuple[int, int] | None) -> Fraction | None:
    return None if per_unit is None or 0 in per_unit else Fraction(per_unit[1], per_unit[0])


def _rounded(value: Fraction) -> Fraction:
    return Fraction(f"{float(value):.{DIGITS}g}")
