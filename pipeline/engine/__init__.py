"""How blocks run: any block-wise work on any number of workers, tracked, resumable, audited. Knows no stage.

What a stage of one's own needs (docs/ENGINE.md shows one); each name is imported when it is asked for:

    from pipeline.engine import VolumeTask, open_raw, raw_identity, run_stages
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .blocks.grid import Block, BlockGrid
    from .blocks.stage import BlockFunction, BlockTask, DriverStep, Stage, VolumeTask
    from .blocks.storage import open_raw, raw_identity
    from .chain import run_stages

__all__ = [
    "Block",
    "BlockFunction",
    "BlockGrid",
    "BlockTask",
    "DriverStep",
    "Stage",
    "VolumeTask",
    "open_raw",
    "raw_identity",
    "run_stages",
]

_MODULES = {
    "blocks.grid": ("Block", "BlockGrid"),
    "blocks.stage": ("BlockFunction", "BlockTask", "DriverStep", "Stage", "VolumeTask"),
    "blocks.storage": ("open_raw", "raw_identity"),
    "chain": ("run_stages",),
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
