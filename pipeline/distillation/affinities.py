"""Affinities of voxel embeddings: how alike two voxels at a fixed offset look to a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .balance import balanced_weights
from .maps import Index, pair_products, unit_map

Offsets = Sequence[Sequence[int]]


def embedding_affinities(
    embedding: torch.Tensor, offsets: Offsets, least_length: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine between the embeddings of voxel p and voxel p + offset.

    Args:
        embedding: (B, D, *spatial).
        offsets: in voxels, one number per spatial axis.
        least_length: a shorter embedding has this length in the cosine, which is the smaller for it: a network can say
            by a short vector that a voxel has an affinity to none.

    Returns:
        affinities: (B, K, *spatial) in [-1, 1], float32 (float64 for such embeddings); 0 where p + offset lies outside.
        valid: (K, *spatial) bool, True where p + offset lies inside.

    Raises:
        ValueError: an offset has another number of axes than the embedding.
    """
    spatial = embedding.shape[2:]
    affinities, valid = [], []
    for here, cosines in pair_cosines(unit_map(embedding, least_length), offsets):
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
            the pairs that the teacher keeps apart get as much weight as those that it holds together; each offset
            counts alike, however many pairs it has in a flat patch. Otherwise every pair and every cosine counts
            alike, as published, which is mostly the inside of neurites.
        least_lengths: of the student's and the teacher's embeddings, see `embedding_affinities`.
    """

    def __init__(
        self, offsets: Offsets, *, balanced: bool = False, least_lengths: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        super().__init__()
        self.offsets = tuple(tuple(offset) for offset in offsets)
        self.balanced = balanced
        self.least_lengths = least_lengths

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
        return self.compare(unit_map(student, self.least_lengths[0]), unit_map(teacher.detach(), self.least_lengths[1]))

    def compare(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The loss of embeddings of unit length, see `unit_map`; the teacher's carry no gradient."""
        taught = [cosines for _, cosines in pair_cosines(teacher, self.offsets)]
        learnt = [cosines for _, cosines in pair_cosines(student, self.offsets)]
        sums = [self._squares(of_student, of_teacher) for of_student, of_teacher in zip(learnt, taught, strict=True)]
        pairs = [cosines.numel() for cosines in taught]
        if self.balanced:
            means = [total / count for total, count in zip(sums, pairs, strict=True) if count]
            return torch.stack(means or sums).mean()
        return torch.stack(sums).sum() / max(1, sum(pairs))

    def _squares(self, learnt: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Sum of the weighted squared differences of the cosines of one offset, (B, *overlap)."""
        if not self.balanced:
            return F.mse_loss(learnt, taught, reduction="sum")
        affinity = cosine_to_affinity(taught)
        unlike = torch.where(affinity > 0, learnt - affinity, F.relu(learnt))
        return (balanced_weights(affinity) * unlike.square()).sum()


def pair_cosines(unit: torch.Tensor, offsets: Offsets) -> list[tuple[Index, torch.Tensor]]:
    """For each offset, the index of the voxels whose partner lies inside, and their cosines (B, *overlap).

    Args:
        unit: (B, D, *spatial) of unit length along D, see `unit_map`.
        offsets: in voxels, one number per spatial axis.
    """
    pairs = [pair_slices(offset, unit.shape[2:]) for offset in offsets]
    products = pair_products(unit, pairs)
    return [(here, cosines) for (here, _), cosines in zip(pairs, products, strict=True)]


def pair_slices(offset: Sequence[int], shape: Sequence[int]) -> tuple[Index, Index]:
    """Indices of all voxels whose partner at `offset` lies inside an array of `shape`, and of these partners.

    Raises:
        ValueError: the offset has another number of axes.
    """
    if len(offset) != len(shape):
        raise ValueError(f"offset {tuple(offset)} does not fit an embedding of {len(shape)} axes")
    here, there = [], []
    for step, extent in zip(offset, shape, strict=True):
        step = max(-extent, min(extent, step))
        here.append(slice(max(0, -step), extent - max(0, step)))
        there.append(slice(max(0, step), extent - max(0, -step)))
    return tuple(here), tuple(there)
