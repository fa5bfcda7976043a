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
from .stem import coarser, coarser_tap, fold, unfold
from .taps import unet_taps
from .unet import ResidualUnet

PIXELS_AT_ONCE = {"cpu": 1 << 18}
"""Without gradients, about so many pixels pass the network at a time: memory stays flat however deep the block, and a
CPU finds more in its cache. Accelerators: `PIXELS_ON_ACCELERATOR`."""

PIXELS_ON_ACCELERATOR = 1 << 20
MOST_WINDOWS_ON_CPU = 8
"""From 16 images on, torch's library for CPUs takes convolutions that round differently; fewer always give the same."""


class SectionUnetNetwork(EmbeddingNetwork):
    """Valid along z (half of the sections are lost on each side), same convolutions along y and x."""

    def __init__(self, config: SectionUnetConfig) -> None:
        factors = [Coordinate(2, 2)] * (len(config.widths) - 1)
        self._together, *self._stem = config.stem
        taps = [_with_sections(coarser_tap(tap, self._stem), config) for tap in _plane_taps(config, factors)]
        super().__init__(config, _section_geometry(config, factors), taps)
        self.sections = config.sections
        pixels = math.prod(self._stem)
        self.unet = ResidualUnet(
            2,
            self.sections_of_window * pixels,
            config.widths,
            factors,
            self._together * pixels * config.voxel_channels,
            config.activation,
        )

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """Embed: (B, 1, Z, Y, X) normalised intensities to (B, D, Z - sections + 1, Y, X)."""
        if torch.is_grad_enabled():
            return self.forward_with_taps(raw)[0]
        windows = self.windows(raw)
        at_once = sections_at_once(raw.shape[-2:], raw.device, self._together) // self._together
        embedded = [self.embed_windows(part).contiguous() for part in windows.split(at_once)]
        return _stack_sections(torch.cat(embedded), raw.shape[0])

    @override
    def forward_with_taps(self, raw: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        embedding, features = self._embed(self.windows(raw))
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

    @property
    def sections_of_window(self) -> int:
        """Sections that enter as channels: those that are embedded together, and what they see around them."""
        return self.sections + self._together - 1

    @override
    def windows(self, raw: torch.Tensor) -> torch.Tensor:
        """(B, 1, Z, Y, X) to (B * (Z - sections + 1) / together, sections of a window, Y, X)."""
        self.output_shape(raw.shape[2:])
        return raw[:, 0].unfold(1, self.sections_of_window, self._together).movedim(-1, 2).flatten(0, 1)

    @override
    def embed_windows(self, windows: torch.Tensor) -> torch.Tensor:
        return self._embed(windows)[0]

    def _embed(self, windows: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The embeddings (N * together, D, Y, X) of windows, and the features of all taps."""
        embedding, features = self.unet(fold(windows, self._stem))
        return unfold(embedding.unflatten(1, (self._together, -1)).flatten(0, 1), self._stem), features


def sections_at_once(plane: Sequence[int], device: torch.device, together: int = 1) -> int:
    """How many sections of (y, x) pixels pass a network at a time without gradients; whole windows.

    Args:
        plane: pixels along y and x.
        device: that computes.
        together: sections that a window embeds.
    """
    windows = max(1, PIXELS_AT_ONCE.get(device.type, PIXELS_ON_ACCELERATOR) // (math.prod(plane) * together))
    return together * (min(windows, MOST_WINDOWS_ON_CPU) if device.type == "cpu" else windows)


def _plane_taps(config: SectionUnetConfig, factors: list[Coordinate]) -> list[Tap]:
    return unet_taps(factors, config.widths, config.widths[:-1], valid=False)


def _with_sections(tap: Tap, config: SectionUnetConfig) -> Tap:
    together = config.stem[0]
    return replace(
        tap,
        downsampling=Coordinate(together, *tap.downsampling),
        field_of_view=Coordinate(config.sections + together - 1, *tap.field_of_view),
        begin=Coordinate(config.sections // 2, *tap.begin),
    )


def _section_geometry(config: SectionUnetConfig, factors: list[Coordinate]) -> Geometry:
    together, *stem = config.stem
    plane, reach = coarser(unet_geometry(factors, valid=False), stem), config.sections // 2
    return Geometry(
        context=Coordinate(reach, *plane.context),
        grid=Coordinate(together, *plane.grid),
        remainder=Coordinate(2 * reach % together, *plane.remainder),
        crop=Coordinate(reach, *plane.crop),
    )


def _stack_sections(features: torch.Tensor, batch: int) -> torch.Tensor:
    """(B * Z, C, Y, X) to (B, C, Z, Y, X)."""
    stacked: torch.Tensor = features.unflatten(0, (batch, -1)).movedim(1, 2)
    return stacked
