"""Loops over voxels that numpy cannot express, compiled to machine code.

The machine code is kept beside the source, or in the user's cache where the installation cannot be written, so that
workers load it instead of compiling it again. It is keyed by the processor: nodes of different kinds do not share any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

Loop = TypeVar("Loop", bound=Callable[..., object])


def compiled(function: Loop) -> Loop:
    """Compile a function when it is first called. Arithmetic is IEEE 754's, in the order in which it is written."""
    try:
        return numba.njit(cache=True, nogil=True)(function)  # type: ignore[return-value]
    except RuntimeError:  # no folder in which machine code could be kept
        return numba.njit(nogil=True)(function)  # type: ignore[return-value]
