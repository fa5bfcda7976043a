"""Teacher and student networks: raw intensities in, one embedding vector per voxel out."""

from .base import EmbeddingNetwork, Tap
from .checkpoint import latest_checkpoint, load_network, save_checkpoint
from .device import choose_autocast, choose_device
from .intensity import normalise_raw
from .registry import build_network, network_names

__all__ = [
    "EmbeddingNetwork",
    "Tap",
    "build_network",
    "choose_autocast",
    "choose_device",
    "latest_checkpoint",
    "load_network",
    "network_names",
    "normalise_raw",
    "save_checkpoint",
]
