"""Supervision of the embedding by ground-truth affinities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .affinities import Offsets, pair_cosines, pair_slices
from .balance import balanced_weights
from .maps import crop, unit_map


class SupervisedAffinityLoss(nn.Module):
    """Pulls the cosine of voxels that belong together to 1, and that of others to 0 or below.

    Per offset the two classes get equal weight, and the weights are normalised to a mean of 1; then the mean over
    the offsets that have known pairs. Pairs that leave the patch never count.

    Args:
        offsets: in voxels, one number per spatial axis.
        background_weight: weight of a pair of two background voxels beside all others, before the classes are
            balanced. On a wide background, pairs of it would outnumber those that a boundary keeps apart.
        least_length: of the embeddings, see `embedding_affinities`.
    """

    def __init__(self, offsets: Offsets, background_weight: float = 1.0, least_length: float = 0.0) -> None:
        super().__init__()
        self.offsets = tuple(tuple(offset) for offset in offsets)
        self.background_weight = background_weight
        self.least_length = least_length

    def forward(
        self,
        embedding: torch.Tensor,
        affinities: torch.Tensor,
        mask: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss.

        Args:
            embedding: (B, D, *spatial).
            affinities: (B, K, *spatial), 1 where p and p + offset k belong together, 0 where not; any dtype.
            mask: (B, K, *spatial), 1 where that is known; any dtype.
            labels: (B, *spatial), 0 is background; needed for a `background_weight` below 1.

        Raises:
            ValueError: targets and embedding do not fit together.
        """
        expected = (embedding.shape[0], len(self.offsets), *embedding.shape[2:])
        if affinities.shape != expected or mask.shape != expected:
            raise ValueError(f"targets of shape {expected} expected, got {affinities.shape} with mask {mask.shape}")
        losses, known = [], []
        for channel, (here, cosines) in enumerate(pair_cosines(unit_map(embedding, self.least_length), self.offsets)):
            target = crop(affinities[:, channel], here).to(cosines.dtype)
            pairs = crop(mask[:, channel], here).to(cosines.dtype)
            if self.background_weight < 1:
                assert labels is not None
                pairs = pairs * self._importance(labels, self.offsets[channel]).to(cosines.dtype)
            weight = balanced_weights(target, pairs)
            losses.append((weight * _miss(cosines, target)).sum() / weight.sum().clamp(min=1e-6))
            known.append(weight.sum() > 0)
        return torch.stack(losses).sum() / torch.stack(known).sum().clamp(min=1)

    def _importance(self, labels: torch.Tensor, offset: tuple[int, ...]) -> torch.Tensor:
        """Weight of each pair of an offset, (B, *overlap)."""
        here, there = pair_slices(offset, labels.shape[1:])
        empty = (crop(labels, here) == 0) & (crop(labels, there) == 0)
        return torch.where(empty, self.background_weight, 1.0)


def _miss(cosines: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return target * (1 - cosines).square() + (1 - target) * F.relu(cosines).square()
