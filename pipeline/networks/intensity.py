"""Raw intensities as the networks see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..volumes.intensity import IntensityRange


def normalise_raw(raw: np.ndarray, intensity: IntensityRange | None = None) -> np.ndarray:
    """Map a range of intensities to [-1, 1]; never looks at the data, so blocks agree.

    Args:
        raw: any shape.
        intensity: what becomes -1 and 1, with everything outside cut off. Default: the full range of uint8 or uint16.

    Returns:
        float32 of the same shape.

    Raises:
        TypeError: another dtype, and no range.
    """
    if intensity is not None and not intensity.is_of_type(raw.dtype):
        return intensity.normalised(raw)
    if raw.dtype not in (np.uint8, np.uint16):
        if intensity is not None:
            return intensity.normalised(raw)
        raise TypeError(f"raw intensities are uint8 or uint16, got {raw.dtype}")
    half_range = np.float32(np.iinfo(raw.dtype).max / 2)
    return raw.astype(np.float32) / half_range - np.float32(1)
