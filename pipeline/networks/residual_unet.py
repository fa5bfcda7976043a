"""A residual U-Net with same convolutions, for images and for volumes."""

from __future__ import annotations

import math
from typing import Any

import torch
from funlib.geometry import Coordinate
from typing_extensions import override

from ..config import ResidualUnetConfig
from .base import EmbeddingNetwork
from .geometry import unet_geometry
from .stem import coarser, coarser_tap, fold, unfold
from .taps import unet_taps
from .unet import ResidualUnet

DEFAULT_FACTOR = (1, 2, 2)

PUBLISHED_TEACHER_WIDTHS = (64, 128, 256, 512, 1040)
"""For images: as many parameters as the published 2D teacher, 33.6 M."""

PUBLISHED_STUDENT_WIDTHS = (4, 16, 24, 48, 96)
"""For images: as many parameters as the published 2D student, 0.296 M."""


class ResidualUnetNetwork(EmbeddingNetwork):
    """The embedding has the extent of the input; near the ends of the input it is not exact (see `context`)."""

    def __init__(self, config: ResidualUnetConfig) -> None:
        levels_below = len(config.widths) - 1
        given = config.downsampling or (DEFAULT_FACTOR,) * levels_below
        factors = [Coordinate(factor[-config.dimensions :]) for factor in given]
        taps = unet_taps(factors, config.widths, config.widths[:-1], valid=False)
        self._stem = config.stem[-config.dimensions :]
        geometry = coarser(unet_geometry(factors, valid=False), self._stem)
        super().__init__(config, geometry, [coarser_tap(tap, self._stem) for tap in taps])
        folded = math.prod(self._stem)
        self.unet = ResidualUnet(
            config.dimensions, folded, config.widths, factors, folded * config.voxel_channels, config.activation
        )

    @override
    @property
    def head(self) -> Any:
        return self.unet.head

    @override
    def forward_with_taps(self, raw: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        self.output_shape(raw.shape[2:])
        embedding, features = self.unet(fold(raw, self._stem))
        return unfold(embedding, self._stem), features
