"""The head that learns local shape descriptors beside what the network itself gives, and its loss."""

from __future__ import annotations

import math

import torch
from torch import nn

from ...networks import EmbeddingNetwork
from ...networks.stem import unfold
from .views import find_tap

LAYER = "decoder_0"
"""The features that the network's own head sees, too."""


class DescriptorHead(nn.Module):
    """A 1x1x1 convolution with a sigmoid. It belongs to the training: the network and its checkpoint do not know it.

    Args:
        network: whose features it sees.
        channels: of the descriptors.
        weight: of the loss.
    """

    def __init__(self, network: EmbeddingNetwork, channels: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self._stem = network.stem
        features = find_tap(network, LAYER, "targets.descriptors").channels
        self.head = nn.Conv3d(features, channels * math.prod(self._stem), 1)

    def forward(self, features: torch.Tensor, descriptors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The squared error, mean over the channels and the voxels that belong to an object.

        Args:
            features: (b, c, *size) of the layer.
            descriptors: (b, k, z, y, x) float32 in [0, 1].
            labels: (b, z, y, x), 0 where no descriptor is known.
        """
        said = torch.sigmoid(unfold(self.head(features), self._stem))
        known = labels > 0
        squares = (said - descriptors).square().mean(1) * known
        total: torch.Tensor = squares.sum() / known.sum().clamp(min=1)
        return total
