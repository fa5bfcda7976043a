"""The critic of adversarial distillation: tells predictions of the teacher from those of the student."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.1
"""Of the leaky ReLU."""

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}


class Critic(nn.Module):
    """Convolutions with spectral normalisation that halve the resolution, self-attention, and one number per image.

    The mean over all places enters a last linear layer, which is not normalised, so that the critic can be as steep as
    the gradient penalty asks it to be.

    Args:
        channels: of a prediction.
        dimensions: 2 for images, 3 for volumes.
        widths: channels after each halving.
    """

    def __init__(self, channels: int, dimensions: int = 3, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for before, behind in pairwise((channels, *widths)):
            halving = CONVOLUTION[dimensions](before, behind, kernel_size=3, stride=2, padding=1)
            blocks += [spectral_norm(halving), nn.LeakyReLU(SLOPE)]
        self.blocks = nn.Sequential(*blocks)
        self.attention = SelfAttention(widths[-1], dimensions)
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, prediction: torch.Tensor) -> torch.Tensor:
        """How much each prediction (B, channels, *spatial) looks like one of the teacher's, (B,)."""
        features = self.attention(self.blocks(prediction))
        score: torch.Tensor = self.head(features.flatten(2).mean(2)).squeeze(1)
        return score


class SelfAttention(nn.Module):
    """Every place looks at every other (Zhang et al., Self-Attention GAN, ICML 2019).

    It begins as the identity and learns how much of the attention to add.

    Args:
        channels: of the features; queries and keys have an eighth of them.
        dimensions: 2 for images, 3 for volumes.
    """

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query, self.key, self.value = (
            spectral_norm(CONVOLUTION[dimensions](channels, out, kernel_size=1)) for out in (inner, inner, channels)
        )
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, channels, *spatial) to the same shape."""
        query, key, value = (layer(features).flatten(2) for layer in (self.query, self.key, self.value))
        attention = torch.softmax(query.transpose(1, 2) @ key, dim=2)  # (B, places, places)
        seen = value @ attention.transpose(1, 2)
        attended: torch.Tensor = features + self.share * seen.view_as(features)
        return attended
