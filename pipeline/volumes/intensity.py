"""Raw intensities as networks see them: which range of a volume is mapped to [-1, 1].

8-bit EM uses the range of its type; 12-bit EM in uint16, or floats, do not: their range is given, or measured once on a
sample and written into the run. A block is never looked at for it, so that blocks agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from funlib.geometry import Coordinate

from ..errors import UserError
from .boxes import Box
from .identity import sampled_chunks
from .volume import Volume

Setting = Literal["auto", "dtype", "percentiles"] | tuple[float, float]
"""What the config says: `intensity` of a source."""

TYPES = ("uint8", "uint16", "int8", "int16", "float16", "float32")
"""Types of raw intensities."""
PERCENTILES = (0.1, 99.9)
SAMPLED_CHUNKS = 32
SAMPLED_EDGE = 64
"""Voxels along each edge that are taken from a sampled chunk at most."""
STRONGLY = 0.5
"""Share of a range by which another one must be off to be told."""


@dataclass(frozen=True)
class IntensityRange:
    """The intensities that become -1 and 1.

    Attributes:
        low, high: intensities.
        source: who says so: `the config`, `the type uint8`, `percentiles 0.1 and 99.9 of a sample`.
    """

    low: float
    high: float
    source: str

    @property
    def text(self) -> str:
        """The range for people, in one line."""
        return f"intensity {self.low:.6g} to {self.high:.6g} ({self.source})"

    def normalised(self, raw: np.ndarray) -> np.ndarray:
        """Intensities mapped from low..high to -1..1; what lies outside is cut off there.

        Args:
            raw: any shape, of one of `TYPES`.

        Returns:
            float32 of the same shape.
        """
        half = np.float32((self.high - self.low) / 2)
        mapped = (raw.astype(np.float32) - np.float32(self.low)) / half - np.float32(1)
        return np.clip(mapped, -1, 1, out=mapped)

    def is_of_type(self, dtype: np.dtype) -> bool:
        """Whether it is the full range of a type."""
        if dtype.kind not in "ui":
            return False
        limits = np.iinfo(dtype)
        return (self.low, self.high) == (limits.min, limits.max)

    def as_json(self) -> dict[str, Any]:
        """For the run's files; `IntensityRange(**…)` reads it."""
        return {"low": self.low, "high": self.high, "source": self.source}


def intensity_range(volume: Volume, setting: Setting = "auto", seed: int = 0, where: str = "") -> IntensityRange:
    """The range that a setting means for a volume.

    Args:
        volume: raw intensities.
        setting: `dtype` for the full range of the type; a pair of intensities; `percentiles` to measure; `auto` for
            the full range of uint8, and measuring otherwise.
        seed: of the sample that is measured.
        where: dotted path of the setting, for messages.

    Raises:
        UserError: the volume holds no intensities, or no range comes out.
    """
    if volume.dtype.name not in TYPES:
        raise UserError(
            f"{volume.name} is {volume.dtype.name}; raw intensities are {', '.join(TYPES[:-1])} or {TYPES[-1]}", where
        )
    if isinstance(setting, tuple):
        low, high = setting
        if not low < high:
            raise UserError(f"[{low:g}, {high:g}] is no range: the first number must be the smaller one", where)
        return IntensityRange(float(low), float(high), "the config")
    if setting == "dtype" or (setting == "auto" and volume.dtype == np.uint8):
        return _full_range(volume, where)
    return measured_range(volume, seed, where)


def measured_range(volume: Volume, seed: int, where: str = "") -> IntensityRange:
    """Percentiles of a sample of chunks; voxels that are exactly 0, as padding is, do not count if others are there.

    Raises:
        UserError: the sample has NaN, or one intensity only.
    """
    parts = []
    for box in sampled_chunks(volume, SAMPLED_CHUNKS, seed=f"intensity {seed}"):
        data = volume.read(_middle(box)).ravel()
        if data.dtype.kind == "f" and not np.isfinite(data).all():
            raise UserError(
                f"{volume.name} has NaN or infinite intensities; write numbers in their place, 0 where nothing is",
                where,
            )
        parts.append(data)
    values = np.concatenate(parts)
    values = values[values != 0] if values.any() else values
    low, high = (float(value) for value in np.percentile(values.astype(np.float32), PERCENTILES))
    if not low < high:
        raise UserError(f"all sampled intensities of {volume.name} are {low:g}; give their range as [low, high]", where)
    return IntensityRange(low, high, f"percentiles {PERCENTILES[0]:g} and {PERCENTILES[1]:g} of a sample")


def strong_difference(first: IntensityRange, other: IntensityRange) -> str | None:
    """How two ranges differ, for people, if one is off by much of the other; None if they are alike."""
    span = min(first.high - first.low, other.high - other.low)
    if max(abs(first.low - other.low), abs(first.high - other.high)) <= STRONGLY * span:
        return None
    return f"{first.low:.6g} to {first.high:.6g} against {other.low:.6g} to {other.high:.6g}"


def _full_range(volume: Volume, where: str) -> IntensityRange:
    if volume.dtype.kind == "f":
        raise UserError(
            f"{volume.name} is {volume.dtype.name}, which has no full range; give [low, high] or percentiles", where
        )
    limits = np.iinfo(volume.dtype)
    return IntensityRange(float(limits.min), float(limits.max), f"the type {volume.dtype.name}")


def _middle(box: Box) -> Box:
    """The middle of a box, not larger than a sample is."""
    extent = Coordinate(min(edge, SAMPLED_EDGE) for edge in box.shape)
    begin = box.begin + (box.shape - extent) / 2
    return Box(begin, begin + extent)
