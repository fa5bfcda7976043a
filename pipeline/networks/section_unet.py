"""A volume embedded section by section: neighbouring sections enter a 2D U-Net as channels.

Convolutions in 2D train several times faster on a CPU than those in 3D, and a few neighbouring sections are enough to
tell which voxels of two sections belong together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from funlib.geometry import Coordinate
from typing_extensions import override

from ..config import SectionUnetConfig
from .base import EmbeddingNetwork, Tap
from .geometry import Geometry, unet_geometry
from .taps import unet_taps
from .unet import ResidualUnet

PIXELS_AT_ONCE = {"cpu": 1 << 18}
"""Without gradients, about so many pixels pass the network at a time: memory stays flat however deep the block, and a
CPU finds more in its cache. Accelerators: `PIXELS_ON_ACCELERATOR`."""

PIXELS_ON_ACCELERATOR = 1 << 20
MOST_SECTIONS_ON_CPU = 8
"""From 16 images on, torch's library for CPUs takes convolutions that round differently; fewer always give the same."""


class SectionUnetNetwork(EmbeddingNetwork):
    """Valid along z (half of the sections are lost on each side), same convolutions along y and x."""

    def __init__(self, config: SectionUnetConfig) -> None:
        factors = [Coordinate(2, 2)] * (len(config.widths) - 1)
        reach = config.sections // 2
        in_plane = [_with_sections(tap, config.sections) for tap in _plane_taps(config, factors)]
        super().__init__(config, _section_geometry(factors, reach), in_plane)
        self.sections = config.sections
        self.unet = ResidualUnet(2, config.sections, config.widths, factors, config.embedding_channels)

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """Embed: (B, 1, Z, Y, X) normalised intensities to (B, D, Z - sections + 1, Y, X)."""
        if torch.is_grad_enabled():
            return self.forward_with_taps(raw)[0]
        windows = self.windows(raw)
        embedded = [
            self.embed_windows(part).contiguous()
            for part in windows.split(sections_at_once(raw.shape[-2:], raw.device))
        ]
        return _stack_sections(torch.cat(embedded), raw.shape[0])

    @override
    def forward_with_taps(self, raw: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        embedding, features = self.unet(self.windows(raw))
        batch = raw.shape[0]
        return _stack_sections(embedding, batch), {name: _stack_sections(f, batch) for name, f in features.items()}

    @override
    @property
    def head(self) -> Any:
        return self.unet.head

    @override
    @property
    def section_reach(self) -> int:
        return self.sections // 2

    def windows(self, raw: torch.Tensor) -> torch.Tensor:
        """(B, 1, Z, Y, X) to (B * (Z - sections + 1), sections, Y, X)."""
        self.output_shape(raw.shape[2:])
        return raw[:, 0].unfold(1, self.sections, 1).movedim(-1, 2).flatten(0, 1)

    @override
    def embed_windows(self, windows: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.unet(windows)[0]
        return embedding


def sections_at_once(plane: Sequence[int], device: torch.device) -> int:
    """How many sections of (y, x) pixels pass a network at a time without gradients."""
    sections = max(1, PIXELS_AT_ONCE.get(device.type, PIXELS_ON_ACCELERATOR) // math.prod(plane))
    return min(sections, MOST_SECTIONS_ON_CPU) if device.type == "cpu" else sections


def _plane_taps(config: SectionUnetConfig, factors: list[Coordinate]) -> list[Tap]:
    return unet_taps(factors, config.widths, config.widths[:-1], valid=False)


def _with_sections(tap: Tap, sections: int) -> Tap:
    return replace(
        tap,
        downsampling=Coordinate(1, *tap.downsampling),
        field_of_view=Coordinate(sections, *tap.field_of_view),
        begin=Coordinate(sections // 2, *tap.begin),
    )


def _section_geometry(factors: list[Coordinate], reach: int) -> Geometry:
    plane = unet_geometry(factors, valid=False)
    return Geometry(
        context=Coordinate(reach, *plane.context),
        grid=Coordinate(1, *plane.grid),
        remainder=Coordinate(0, *plane.remainder),
        crop=Coordinate(reach, *plane.crop),
    )


def _stack_sections(features: torch.Tensor, batch: int) -> torch.Tensor:
    """(B * Z, C, Y, X) to (B, C, Z, Y, X)."""
    stacked: torch.Tensor = features.unflatten(0, (batch, -1)).movedim(1, 2)
    return stacked
