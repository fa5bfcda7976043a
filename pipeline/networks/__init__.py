"""Teacher and student networks: raw intensities in, one embedding vector per voxel out."""

from .base import EmbeddingNetwork, Tap
from .checkpoint import latest_checkpoint, load_network, save_checkpoint
from .compact import compact
from .device import choose_autocast, choose_device
from .engines import Engine, TorchEngine, build_engine, fastest_engine
from .intensity import normalise_raw
from .registry import build_network, network_names
from .section_unet import sections_at_once

__all__ = [
    "EmbeddingNetwork",
    "Engine",
    "Tap",
    "TorchEngine",
    "build_engine",
    "build_network",
    "choose_autocast",
    "choose_device",
    "compact",
    "fastest_engine",
    "latest_checkpoint",
    "load_network",
    "network_names",
    "normalise_raw",
    "save_checkpoint",
    "sections_at_once",
]
