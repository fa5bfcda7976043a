"""Teacher and student networks: raw intensities in, one embedding vector per voxel out."""

from .base import EmbeddingNetwork, Tap
from .checkpoint import load_network, save_checkpoint
from .compact import compact
from .device import choose_autocast, choose_device
from .engines import Engine, TorchEngine, best_engine, build_engine
from .footprint import peak_bytes
from .intensity import normalise_raw
from .registry import build_network, network_names
from .section_unet import sections_at_once

__all__ = [
    "EmbeddingNetwork",
    "Engine",
    "Tap",
    "TorchEngine",
    "best_engine",
    "build_engine",
    "build_network",
    "choose_autocast",
    "choose_device",
    "compact",
    "load_network",
    "network_names",
    "normalise_raw",
    "peak_bytes",
    "save_checkpoint",
    "sections_at_once",
]
