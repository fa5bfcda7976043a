"""The residual U-Net that both the section network and the 2D and 3D networks are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"elu": F.elu, "relu": F.relu}


class ResidualBlock(nn.Module):
    """Two convolutions beside a 1x1 shortcut; an activation between and after the sum."""

    def __init__(self, dimensions: int, channels_in: int, channels_out: int, activation: str) -> None:
        super().__init__()
        self._activate = ACTIVATIONS[activation]
        convolution: Any = CONVOLUTION[dimensions]
        self.first = convolution(channels_in, channels_out, 3, padding=1)
        self.second = convolution(channels_out, channels_out, 3, padding=1)
        self.shortcut = convolution(channels_in, channels_out, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, channels_in, *size) to (B, channels_out, *size)."""
        inner = self._activate(self.first(features))
        return self._activate(self.second(inner) + self.shortcut(features))


class ResidualUnet(nn.Module):
    """Encoder, bottleneck and decoder of residual blocks, and a 1x1 head.

    Args:
        dimensions: 2 or 3 spatial axes.
        channels_in: channels of the input.
        widths: channels of each level, finest first.
        factors: pooling factors between the levels, per axis.
        channels_out: channels of the output.
        activation: a name in `ACTIVATIONS`.
    """

    def __init__(
        self,
        dimensions: int,
        channels_in: int,
        widths: Sequence[int],
        factors: Sequence[Sequence[int]],
        channels_out: int,
        activation: str = "elu",
    ) -> None:
        super().__init__()
        pool: Any = MAX_POOL[dimensions]
        self.memory_format = CHANNELS_LAST[dimensions]
        self.encoder = nn.ModuleList(
            ResidualBlock(dimensions, a, b, activation) for a, b in pairwise((channels_in, *widths))
        )
        self.pools = nn.ModuleList(pool(tuple(factor)) for factor in factors)
        self.upsamplers = nn.ModuleList(nn.Upsample(scale_factor=tuple(map(float, factor))) for factor in factors)
        self.decoder = nn.ModuleList(ResidualBlock(dimensions, a + b, a, activation) for a, b in pairwise(widths))
        self.head = CONVOLUTION[dimensions](widths[0], channels_out, 1)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Embed every voxel of its grid.

        Args:
            features: (B, channels_in, *size), each extent a multiple of the product of the factors.

        Returns:
            (B, channels_out, *size), and the outputs of all blocks by tap name.
        """
        features = features.contiguous(memory_format=self.memory_format)
        taps = {}
        for level, block in enumerate(self.encoder):
            features = block(self.pools[level - 1](features) if level else features)
            taps[f"encoder_{level}"] = features
        bottom = len(self.encoder) - 1
        taps["bottleneck"] = taps.pop(f"encoder_{bottom}")
        for level in reversed(range(bottom)):
            features = torch.cat((self.upsamplers[level](features), taps[f"encoder_{level}"]), dim=1)
            features = self.decoder[level](features)
            taps[f"decoder_{level}"] = features
        return self.head(features), taps
