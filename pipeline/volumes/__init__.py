"""Arrays on disk with their place in the world, and boxes of voxels."""

from .arrays import RunVolume, create_volume, delete_volume, open_volume, volume_exists
from .boxes import SPATIAL_AXES, ZERO, Box, cells_of, crop, mirror_indices
from .nanometres import Nanometres, position_of, three_numbers
from .run_arrays import StorageFormat, StoredArray
from .run_containers import container_attributes, container_format, ensure_container, note_in_container
from .storage import limit_storage_threads, storage_threads
from .tensors import chunk_inside, compressor_of

__all__ = [
    "SPATIAL_AXES",
    "ZERO",
    "Box",
    "Nanometres",
    "RunVolume",
    "StorageFormat",
    "StoredArray",
    "cells_of",
    "chunk_inside",
    "compressor_of",
    "container_attributes",
    "container_format",
    "create_volume",
    "crop",
    "delete_volume",
    "ensure_container",
    "limit_storage_threads",
    "mirror_indices",
    "note_in_container",
    "open_volume",
    "position_of",
    "storage_threads",
    "three_numbers",
    "volume_exists",
]
