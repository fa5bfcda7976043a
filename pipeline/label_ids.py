"""Ids of labels: whole numbers of up to 64 bits, with or without a sign.

-1 and 2⁶⁴ - 1 are one id: what programs write for "no label", and what becomes of it where signs are not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

LOWEST, HIGHEST = -(2**63), 2**64 - 1
"""Ids that 64 bits can hold."""


def has_id(labels: np.ndarray, wanted: int) -> np.ndarray:
    """Where labels have an id, bool; False everywhere if their type cannot hold it.

    Args:
        labels: whole numbers of any type.
        wanted: from `LOWEST` to `HIGHEST`.
    """
    if not can_hold(labels.dtype, wanted):
        return np.zeros(labels.shape, bool)
    result: np.ndarray = labels == _with_the_sign_of(labels.dtype, wanted)
    return result


def has_any(labels: np.ndarray, wanted: Iterable[int]) -> np.ndarray:
    """Where labels have one of some ids, bool."""
    found = np.zeros(labels.shape, bool)
    for label in wanted:
        found |= has_id(labels, label)
    return found


def without_labels(labels: np.ndarray, unwanted: Sequence[int]) -> np.ndarray:
    """Labels with 0 in place of some ids."""
    return np.where(has_any(labels, unwanted), labels.dtype.type(0), labels) if unwanted else labels


def can_hold(dtype: np.dtype, wanted: int) -> bool:
    """Whether a type of whole numbers has a value for an id."""
    if dtype.kind == "b":
        return wanted in (0, 1)
    limits = np.iinfo(dtype)
    return bool(limits.min <= _with_the_sign_of(dtype, wanted) <= limits.max)


def _with_the_sign_of(dtype: np.dtype, wanted: int) -> int:
    """The id as a type writes it that has a sign, or has none."""
    if dtype.kind == "u" and wanted < 0:
        return wanted + 2**64
    if dtype.kind == "i" and wanted >= 2**63:
        return wanted - 2**64
    return wanted
