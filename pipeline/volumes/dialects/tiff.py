"""TIFF: voxel sizes as OME-XML and ImageJ write them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from ..placement import Statement
from .units import exact, nanometres_per

OME = "OME-XML, PhysicalSize"
DIGITS_SHOWN = 20
DIGITS = 7
"""Of a resolution that ImageJ stored as a ratio of whole numbers: further ones are noise."""


def statements(metadata: Mapping[str, Any]) -> Iterator[Statement]:
    """The voxel size that a file states: in OME-XML if it is there, otherwise as ImageJ writes it.

    Args:
        metadata: `ome` (XML), `imagej` (its description), `y_resolution` and `x_resolution`; any may be missing.
    """
    told = list(ome_statements(metadata.get("ome")))
    yield from told or imagej_statements(
        metadata.get("imagej"), metadata.get("y_resolution"), metadata.get("x_resolution")
    )


def ome_statements(xml: str | None) -> Iterator[Statement]:
    """The voxel size in OME-XML, if it says all three extents; without a unit they are micrometres, as OME defines."""
    try:
        pixels = _pixels(xml)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        yield Statement("voxel_size", OME, None, f"its XML cannot be read: {error}")
        return
    if pixels is None or any(pixels.get(f"PhysicalSize{axis}") is None for axis in "ZYX"):
        return
    sizes, units = [], []
    for axis in "ZYX":
        units.append(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        number, per = _number(pixels.get(f"PhysicalSize{axis}", "")), nanometres_per(units[-1])
        sizes.append(None if number is None or per is None else number * per)
    z, y, x = sizes
    known = None if z is None or y is None or x is None else (z, y, x)
    told = ", ".join(
        f"{pixels.get(f'PhysicalSize{axis}', '')[:DIGITS_SHOWN]} {unit}"
        for axis, unit in zip("ZYX", units, strict=True)
    )
    yield Statement("voxel_size", OME, known, f"it says {told}")


def _pixels(xml: str | None) -> ElementTree.Element | None:
    """The element that says the voxel size.

    Raises:
        ElementTree.ParseError: it is no XML.
        ValueError: it defines entities, which metadata have no use for, and which can grow without end.
    """
    if not xml:
        return None
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise ValueError("it defines entities")
    return ElementTree.fromstring(xml).find(".//{*}Pixels")


def _number(text: str) -> Fraction | None:
    """A number as it is written, of as many digits as floating point holds; None if it is none."""
    try:
        return exact(float(text))
    except ValueError:
        return None


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
