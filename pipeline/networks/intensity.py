"""Raw intensities as the networks see them."""

from __future__ import annotations

import numpy as np


def normalise_raw(raw: np.ndarray) -> np.ndarray:
    """Map the whole range of an integer type to [-1, 1]; never looks at the data, so blocks agree.

    Args:
        raw: any shape, uint8 or uint16.

    Returns:
        float32 of the same shape.

    Raises:
        TypeError: another dtype.
    """
    if raw.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"raw intensities are uint8 or uint16, got {raw.dtype}")
    half_range = np.float32(np.iinfo(raw.dtype).max / 2)
    return raw.astype(np.float32) / half_range - np.float32(1)
