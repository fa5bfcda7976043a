"""Arrays on disk with their place in the world, and boxes of voxels."""

from .arrays import (
    SPATIAL_AXES,
    ZERO,
    Box,
    Volume,
    cells_of,
    chunks_of,
    compressor_of,
    create_volume,
    crop,
    delete_volume,
    mirror_indices,
    open_volume,
    volume_exists,
)
from .chunks import CheckedStore, blosc_length, decoded
from .nanometres import Nanometres, position_of

__all__ = [
    "SPATIAL_AXES",
    "ZERO",
    "Box",
    "CheckedStore",
    "Nanometres",
    "Volume",
    "blosc_length",
    "cells_of",
    "chunks_of",
    "compressor_of",
    "create_volume",
    "crop",
    "decoded",
    "delete_volume",
    "mirror_indices",
    "open_volume",
    "position_of",
    "volume_exists",
]
