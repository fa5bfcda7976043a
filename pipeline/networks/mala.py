"""MALA, the 3D U-Net of Funke et al. (IEEE TPAMI 2019), as published for graph relation distillation: with a voxel
embedding at its end. The tiny student is the same architecture with fewer channels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from funlib.geometry import Coordinate
from torch import nn
from typing_extensions import override

from ..config import MalaConfig
from .base import EmbeddingNetwork
from .geometry import unet_geometry
from .taps import unet_taps

SLOPE = 0.005
"""Slope of the leaky ReLU for negative values."""


class MalaNetwork(EmbeddingNetwork):
    """Valid convolutions: an input of 84 x 268 x 268 voxels gives 56 x 56 x 56."""

    def __init__(self, config: MalaConfig) -> None:
        factors = [Coordinate(factor) for factor in config.downsampling]
        widths = config.widths
        decoder_widths = widths[:-1] if config.decoder_widths is None else config.decoder_widths
        taps = unet_taps(factors, widths, decoder_widths, valid=True)
        super().__init__(config, unet_geometry(factors, valid=True), taps)
        self.encoder = nn.ModuleList(ConvolutionPair(a, b) for a, b in pairwise((1, *widths)))
        self.pools = nn.ModuleList(nn.MaxPool3d(tuple(factor)) for factor in factors)
        coarser = (*decoder_widths[1:], widths[-1])
        self.upsamplers = nn.ModuleList(
            Upsampling(below, skip, factor) for below, skip, factor in zip(coarser, widths[:-1], factors, strict=True)
        )
        self.decoder = nn.ModuleList(
            ConvolutionPair(2 * skip, width) for skip, width in zip(widths[:-1], decoder_widths, strict=True)
        )
        self.head = nn.Conv3d(decoder_widths[0], config.voxel_channels, 1)
        self.apply(_initialise)

    @override
    def forward_with_taps(self, raw: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        self.output_shape(raw.shape[2:])
        features, taps = raw, {}
        for level, block in enumerate(self.encoder):
            features = block(self.pools[level - 1](features) if level else features)
            taps[f"encoder_{level}"] = features
        bottom = len(self.encoder) - 1
        taps["bottleneck"] = taps.pop(f"encoder_{bottom}")
        for level in reversed(range(bottom)):
            upsampled = self.upsamplers[level](features)
            skip = crop_to(taps[f"encoder_{level}"], upsampled.shape[2:])
            features = self.decoder[level](torch.cat((upsampled, skip), dim=1))
            taps[f"decoder_{level}"] = features
        return self.head(features), taps


class ConvolutionPair(nn.Module):
    """Two valid 3x3x3 convolutions, each with a leaky ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels_in, channels_out, 3)
        self.second = nn.Conv3d(channels_out, channels_out, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, channels_in, z, y, x) to (B, channels_out, z - 4, y - 4, x - 4)."""
        return F.leaky_relu(self.second(F.leaky_relu(self.first(features), SLOPE)), SLOPE)


class Upsampling(nn.Module):
    """Each channel by itself through a transposed convolution, then channels mixed by a 1x1x1 convolution."""

    def __init__(self, channels_in: int, channels_out: int, factor: Coordinate) -> None:
        super().__init__()
        size = tuple(factor)
        self.enlarge = nn.ConvTranspose3d(channels_in, channels_in, size, size, groups=channels_in, bias=False)
        self.mix = nn.Conv3d(channels_in, channels_out, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, channels_in, z, y, x) to (B, channels_out, z * factor, y * factor, x * factor)."""
        result: torch.Tensor = self.mix(self.enlarge(features))
        return result


def crop_to(features: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """The middle of (B, C, *larger) with the extent `size`."""
    margins = [(have - want) // 2 for have, want in zip(features.shape[2:], size, strict=True)]
    for axis, (margin, want) in enumerate(zip(margins, size, strict=True), start=2):
        features = features.narrow(axis, margin, want)
    return features


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, SLOPE, "fan_in", "leaky_relu")
