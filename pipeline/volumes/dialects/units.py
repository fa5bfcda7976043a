"""Numbers exactly as they are written, and units of length in nanometres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

_PER_UNIT: Mapping[str, Fraction] = {
    "pm": Fraction(1, 1000),
    "picometer": Fraction(1, 1000),
    "angstrom": Fraction(1, 10),
    "å": Fraction(1, 10),
    "nm": Fraction(1),
    "nanometer": Fraction(1),
    "um": Fraction(1000),
    "µm": Fraction(1000),
    "micron": Fraction(1000),
    "micrometer": Fraction(1000),
    "mm": Fraction(10**6),
    "millimeter": Fraction(10**6),
    "cm": Fraction(10**7),
    "centimeter": Fraction(10**7),
    "m": Fraction(10**9),
    "meter": Fraction(10**9),
    "inch": Fraction(25_400_000),
}


LARGEST = 1e30
"""No length or place is as large, in whatever unit."""


def nanometres_per(unit: Any) -> Fraction | None:
    """How many nanometres a unit of length has; None if it is not known."""
    if not isinstance(unit, str):
        return None
    name = unit.strip().lower().replace("\\u00b5", "µ").replace("μ", "µ")
    for spelling in (name, name.removesuffix("s"), name.replace("metre", "meter").removesuffix("s")):
        if spelling in _PER_UNIT:
            return _PER_UNIT[spelling]
    return None


def exact(number: Any) -> Fraction | None:
    """A number as its shortest decimal text says it, so that 0.00358 µm are 3.58 nm; None if it is none."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not -LARGEST < number < LARGEST:
        return None
    return Fraction(repr(number))


def plain(value: Any) -> Any:
    """Attributes as plain Python values: HDF5 hands out numpy arrays and bytes."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return value


def exact_vector(values: Any) -> tuple[Fraction, ...] | None:
    """Several numbers, or None if any is none."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        return None
    numbers = [exact(value) for value in values]
    known = [number for number in numbers if number is not None]
    return tuple(known) if len(known) == len(numbers) else None
