"""What labels ask of a network, of a student as of a teacher that goes on learning beside it."""

from __future__ import annotations

import torch
from torch import nn

from ...config import Offset, TargetsConfig, taught_offsets
from ...networks import EmbeddingNetwork
from .embedding import patch_of
from .validation import supervised_affinities


class LabelLoss(nn.Module):
    """The supervised loss of a network at the offsets that labels teach it.

    Args:
        targets: offsets of the affinities in a batch, and how their pairs are weighted.
        network: that learns; it is no part of this module's parameters or state.
        offsets: those of the targets' offsets that are supervised. Default: all at which the network has affinities.
    """

    def __init__(
        self, targets: TargetsConfig, network: EmbeddingNetwork, offsets: tuple[Offset, ...] | None = None
    ) -> None:
        super().__init__()
        supervised = taught_offsets(network.config, targets.offsets if offsets is None else offsets)
        self.channels = [targets.offsets.index(offset) for offset in supervised]
        self.affinities = supervised_affinities(targets, supervised)
        self._network = (network,)  # in a tuple, so that torch does not take it for a part of this module

    def forward(
        self, output: torch.Tensor, affinities: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """The loss of a batch.

        Args:
            output: (b, d, z, y, x) float32, as the network gives it.
            affinities, mask: (b, k, z, y, x) of the same voxels at all offsets of the targets; the mask is 0 where
                nothing is known, and in unlabelled samples.
            labels: (b, z, y, x).
        """
        embedded = patch_of(self._network[0], output)
        loss: torch.Tensor = self.affinities(embedded, affinities[:, self.channels], mask[:, self.channels], labels)
        return loss
