"""Affinities of voxel embeddings: how alike two voxels at a fixed offset look to a network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .balance import balanced_weights
from .patch import EmbeddedPatch, Offsets


def embedding_affinities(embedding: torch.Tensor, offsets: Offsets) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine between the embeddings of voxel p and voxel p + offset.

    Args:
        embedding: (B, D, *spatial).
        offsets: in voxels, one number per spatial axis.

    Returns:
        affinities: (B, K, *spatial) in [-1, 1], float32 (float64 for such embeddings); 0 where p + offset lies outside.
        valid: (K, *spatial) bool, True where p + offset lies inside.

    Raises:
        ValueError: an offset has another number of axes than the embedding.
    """
    spatial = embedding.shape[2:]
    affinities, valid = [], []
    for here, cosines in EmbeddedPatch(embedding).cosines(offsets):
        margins = [(axis.start, extent - axis.stop) for axis, extent in zip(here, spatial, strict=True)]
        affinities.append(F.pad(cosines, [m for margin in reversed(margins) for m in margin]))
        inside = torch.zeros(spatial, dtype=torch.bool, device=embedding.device)
        inside[here] = True
        valid.append(inside)
    return torch.stack(affinities, dim=1), torch.stack(valid)


def cosine_to_affinity(cosine: torch.Tensor) -> torch.Tensor:
    """An affinity in [0, 1]: opposite embeddings are no less alike than unrelated ones."""
    return cosine.clamp(0, 1)


class AffinityGraphLoss(nn.Module):
    """Squared difference of the student's and the teacher's affinities, mean over all pairs inside the patch.

    Args:
        offsets: in voxels, one number per spatial axis.
        balanced: compare what a segmentation uses, where it matters: cosines below 0 count as 0, and per offset
            the pairs that the teacher keeps apart get as much weight as those that it holds together. Otherwise every
            pair and every cosine counts alike, as published, which is mostly the inside of neurites.
    """

    def __init__(self, offsets: Offsets, *, balanced: bool = False) -> None:
        super().__init__()
        self.offsets = tuple(tuple(offset) for offset in offsets)
        self.balanced = balanced

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The loss.

        Args:
            student: (B, D, *spatial).
            teacher: (B, D', *spatial); the channels may differ. Gets no gradient.

        Raises:
            ValueError: the networks' embeddings have different extents.
        """
        if student.shape[2:] != teacher.shape[2:]:
            raise ValueError(f"student and teacher embed {tuple(student.shape[2:])} and {tuple(teacher.shape[2:])}")
        return self.compare(EmbeddedPatch(student), EmbeddedPatch(teacher.detach()))

    def compare(self, student: EmbeddedPatch, teacher: EmbeddedPatch) -> torch.Tensor:
        """The loss of patches of the same extent; the teacher's carries no gradient."""
        squares, pairs = [], 0
        for (_, learnt), (_, taught) in zip(student.cosines(self.offsets), teacher.cosines(self.offsets), strict=True):
            squares.append(self._squares(learnt, taught))
            pairs += taught.numel()
        return torch.stack(squares).sum() / max(1, pairs)

    def _squares(self, learnt: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Sum of the weighted squared differences of the cosines of one offset, (B, *overlap)."""
        if not self.balanced:
            return F.mse_loss(learnt, taught, reduction="sum")
        affinity = cosine_to_affinity(taught)
        unlike = torch.where(affinity > 0, learnt - affinity, F.relu(learnt))
        return (balanced_weights(affinity) * unlike.square()).sum()
