"""Neuroglancer precomputed: the `info` file. Its vectors are x, y, z; resolutions are nanometres, offsets voxels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...errors import UserError
from ..placement import Statement, Vector
from .units import exact_vector

AXES = "czyx"
"""Axes of a volume, in C order."""


def scale_of(info: Mapping[str, Any], level: int | str, name: str, where: str = "") -> tuple[int, Mapping[str, Any]]:
    """A level of the pyramid by its number or key: its number, and what `info` says about it.

    Raises:
        UserError: there is no such level.
    """
    scales: Sequence[Mapping[str, Any]] = info["scales"]
    keys = [str(scale.get("key")) for scale in scales]
    if isinstance(level, str):
        if level not in keys:
            raise UserError(f"{name} has no level {level!r}; it has {', '.join(keys)}", where)
        return keys.index(level), scales[keys.index(level)]
    if not 0 <= level < len(scales):
        raise UserError(f"{name} has the levels 0 to {len(scales) - 1}, not {level}", where)
    return level, scales[level]


def statements(scale: Mapping[str, Any]) -> Iterator[Statement]:
    """Voxel size and offset of a level."""
    size, offset = _reversed(scale.get("resolution")), _reversed(scale.get("voxel_offset", [0, 0, 0]))
    yield Statement("voxel_size", "info, resolution", size, f"resolution is {scale.get('resolution')!r}")
    trouble = f"voxel_offset is {scale.get('voxel_offset')!r}"
    yield Statement("offset", "info, voxel_offset", offset, trouble, in_voxels=True)


def _reversed(values: Any) -> Vector | None:
    numbers = exact_vector(values)
    if numbers is None or len(numbers) != 3:
        return None
    x, y, z = numbers
    return z, y, x
