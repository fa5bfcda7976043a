"""Supervision of the embedding by ground-truth affinities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .balance import balanced_weights
from .maps import crop
from .patch import EmbeddedPatch, Offsets


class SupervisedAffinityLoss(nn.Module):
    """Pulls the cosine of voxels that belong together to 1, and that of others to 0 or below.

    Per offset the two classes get equal weight, and the weights are normalised to a mean of 1; then the mean over
    the offsets that have known pairs. Pairs that leave the patch never count.

    Args:
        offsets: in voxels, one number per spatial axis.
    """

    def __init__(self, offsets: Offsets) -> None:
        super().__init__()
        self.offsets = tuple(tuple(offset) for offset in offsets)

    def forward(
        self, embedding: torch.Tensor | EmbeddedPatch, affinities: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """The loss.

        Args:
            embedding: (B, D, *spatial), or a patch that other losses look at, too.
            affinities: (B, K, *spatial), 1 where p and p + offset k belong together, 0 where not; any dtype.
            mask: (B, K, *spatial), 1 where that is known; any dtype.

        Raises:
            ValueError: targets and embedding do not fit together.
        """
        expected = (embedding.shape[0], len(self.offsets), *embedding.shape[2:])
        if affinities.shape != expected or mask.shape != expected:
            raise ValueError(f"targets of shape {expected} expected, got {affinities.shape} with mask {mask.shape}")
        cosines_of_offsets = EmbeddedPatch.of(embedding).cosines(self.offsets)
        losses, known = [], []
        for channel, (here, cosines) in enumerate(cosines_of_offsets):
            target = crop(affinities[:, channel], here).to(cosines.dtype)
            weight = balanced_weights(target, crop(mask[:, channel], here).to(cosines.dtype))
            losses.append((weight * _miss(cosines, target)).sum() / weight.sum().clamp(min=1e-6))
            known.append(weight.sum() > 0)
        return torch.stack(losses).sum() / torch.stack(known).sum().clamp(min=1)


def _miss(cosines: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return target * (1 - cosines).square() + (1 - target) * F.relu(cosines).square()
