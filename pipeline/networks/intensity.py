"""Raw intensities as the networks see them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..volumes.intensity import IntensityRange

logger = logging.getLogger(__name__)

INTENSITIES = "intensities"
"""Where the training part of a checkpoint keeps the ranges of its sources, by their names."""


def tell_other_intensities(
    training: Mapping[str, Any], checkpoint: Path | str, intensity: IntensityRange, source: str
) -> None:
    """Say so if a network that was trained elsewhere has seen quite other intensities than it gets now.

    Args:
        training: the part of its checkpoint that continues the training.
        checkpoint: its path, or what the config calls it.
        intensity: what is black and white of the volume that it gets.
        source: the name of that volume.
    """
    from ..volumes.intensity import IntensityRange, strong_difference

    ranges = [IntensityRange(**told) for told in training.get(INTENSITIES, {}).values()]
    differences = [strong_difference(intensity, trained) for trained in ranges]
    if ranges and None not in differences:
        logger.warning(
            "%s has other intensities than what %s was trained on: %s; set volumes.sources.%s.intensity if they were"
            " recorded alike",
            source,
            checkpoint,
            differences[0],
            source,
        )


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
