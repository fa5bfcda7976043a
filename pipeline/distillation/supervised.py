"""Supervision of the embedding by ground-truth affinities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..offsets import Index, pair_slices
from .balance import balanced_weights, class_weights, together_share
from .maps import crop
from .patch import EmbeddedPatch, Offsets

LEAST_OBJECTS = 0.05
"""The pairs that are not background count as no smaller a share of the weight of all pairs than this."""


class SupervisedAffinityLoss(nn.Module):
    """Pulls the cosine of voxels that belong together to 1, and that of others to 0 or below; plain affinities learn by
    cross-entropy.

    Per offset the two classes get equal weight, and the weights are normalised to a mean of 1; then the mean over
    the offsets that have known pairs. Pairs that leave the patch never count. Of a network with an embedding and plain
    affinities, the loss is the sum of both means: the embedding learns all offsets, and the plain affinities theirs.

    Args:
        offsets: in voxels, one number per spatial axis.
        background_weight: weight of a pair of two background voxels, as a multiple of that of a pair within an object.
            Such pairs then take no part in the balance of the classes. Default: they are pairs like any other.
        least_length: of the embeddings, see `embedding_affinities`.
        balanced: the two classes get equal weight; otherwise every known pair counts alike.
    """

    def __init__(
        self,
        offsets: Offsets,
        background_weight: float | None = None,
        least_length: float = 0.0,
        *,
        balanced: bool = True,
    ) -> None:
        super().__init__()
        self.balanced = balanced
        self.offsets = tuple(tuple(offset) for offset in offsets)
        self.background_weight = background_weight
        self.least_length = least_length

    def forward(
        self,
        embedding: torch.Tensor | EmbeddedPatch,
        affinities: torch.Tensor,
        mask: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss.

        Args:
            embedding: (B, D, *spatial), or a patch that other losses look at, too.
            affinities: (B, K, *spatial), 1 where p and p + offset k belong together, 0 where not; any dtype.
            mask: (B, K, *spatial), 1 where that is known; any dtype.
            labels: (B, *spatial), 0 is background; needed for a `background_weight`.

        Raises:
            ValueError: targets and embedding do not fit together.
        """
        expected = (embedding.shape[0], len(self.offsets), *embedding.shape[2:])
        if affinities.shape != expected or mask.shape != expected:
            raise ValueError(f"targets of shape {expected} expected, got {affinities.shape} with mask {mask.shape}")
        patch = EmbeddedPatch.of(embedding, self.least_length)
        cosines = enumerate(patch.cosines(self.offsets) if patch.shape[1] else [])
        compared = [(channel, here, values) for channel, (here, values) in cosines]
        plain = [
            (channel, here, crop(logits, here))
            for channel, offset in enumerate(self.offsets)
            if (logits := patch.logits(offset)) is not None
            for here, _ in [pair_slices(offset, patch.shape[2:])]
        ]
        means = [
            self._mean(learnt, miss, (affinities, mask), labels)
            for learnt, miss in ((compared, _miss), (plain, _cross_entropy))
            if learnt
        ]
        return torch.stack(means).sum()

    def _mean(
        self,
        learnt: Sequence[tuple[int, Index, torch.Tensor]],
        miss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        targets: tuple[torch.Tensor, torch.Tensor],
        labels: torch.Tensor | None,
    ) -> torch.Tensor:
        """Weighted mean over pairs, then over offsets.

        Args:
            learnt: of each offset its channel, the voxels whose partner lies inside, and what the network says of them.
            miss: what it costs to say that where a target is true.
            targets: affinities and mask.
            labels: see `forward`.
        """
        losses, known = [], []
        for channel, here, values in learnt:
            target, pairs = (crop(one[:, channel], here).to(values.dtype) for one in targets)
            weight, total = self._weights(channel, target, pairs, labels)
            losses.append((weight * miss(values, target)).sum() / total.clamp(min=1e-6))
            known.append(total > 0)
        return torch.stack(losses).sum() / torch.stack(known).sum().clamp(min=1)

    def _weights(
        self, channel: int, target: torch.Tensor, pairs: torch.Tensor, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights of the pairs of an offset, and what divides their sum."""
        if self.background_weight is not None:
            assert labels is not None, "a background_weight needs labels"
            empty = pairs * _background_pairs(labels, self.offsets[channel])
            return _weights_with_background(target, pairs - empty, empty, self.background_weight)
        weight = balanced_weights(target, pairs) if self.balanced else pairs
        return weight, weight.sum()


def _background_pairs(labels: torch.Tensor, offset: Sequence[int]) -> torch.Tensor:
    """Pairs of an offset of which both voxels are background, (B, *overlap) bool."""
    here, there = pair_slices(offset, labels.shape[1:])
    return (crop(labels, here) == 0) & (crop(labels, there) == 0)


def _weights_with_background(
    target: torch.Tensor, pairs: torch.Tensor, background: torch.Tensor, background_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of all pairs, and what divides their sum.

    That is the weight of the pairs without the background, so that the extent of the background does not matter, but no
    less than a share of all, so that a batch with hardly any object has no loss beyond measure.
    """
    share = together_share(target, pairs)
    weights = pairs * class_weights(target, share)
    empty = background * background_weight / (2 * share)
    total = weights.sum()
    return weights + empty, total.clamp(min=LEAST_OBJECTS * (total + empty.sum()))


def _miss(cosines: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return target * (1 - cosines).square() + (1 - target) * F.relu(cosines).square()


def _cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")
