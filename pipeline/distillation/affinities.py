"""Affinities of voxel embeddings: how alike two voxels at a fixed offset look to a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .balance import balanced_weights
from .precision import full_precision, no_autocast, unit_vectors

Offsets = Sequence[Sequence[int]]
Index = tuple[slice, ...]


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
    for here, cosines in pair_cosines(embedding, offsets, least_length):
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
        with torch.no_grad():
            taught = [cosines for _, cosines in pair_cosines(teacher, self.offsets, self.least_lengths[1])]
        of_student = pair_cosines(student, self.offsets, self.least_lengths[0])
        squares = [self._squares(learnt, cosines) for (_, learnt), cosines in zip(of_student, taught, strict=True)]
        sums = torch.stack([of_offset.sum() for of_offset in squares])
        pairs = torch.tensor([of_offset.numel() for of_offset in squares], device=sums.device)
        if self.balanced:
            return (sums / pairs.clamp(min=1)).sum() / (pairs > 0).sum().clamp(min=1)
        return sums.sum() / pairs.sum().clamp(min=1)

    def _squares(self, learnt: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Weighted squared differences of the cosines of one offset, (B, *overlap)."""
        if not self.balanced:
            return (learnt - taught).square()
        affinity = cosine_to_affinity(taught)
        unlike = torch.where(affinity > 0, learnt - affinity, F.relu(learnt))
        return balanced_weights(affinity) * unlike.square()


def pair_cosines(
    embedding: torch.Tensor, offsets: Offsets, least_length: float = 0.0
) -> list[tuple[Index, torch.Tensor]]:
    """For each offset, the index of the voxels whose partner lies inside, and their cosines (B, *overlap)."""
    pairs = [pair_slices(offset, embedding.shape[2:]) for offset in offsets]
    with no_autocast(embedding):
        products = _PairProducts.apply(unit_vectors(full_precision(embedding), 1, least_length), pairs)
    return [(here, cosines) for (here, _), cosines in zip(pairs, products, strict=True)]


class _PairProducts(torch.autograd.Function):
    """Inner products of the vectors at pairs of places.

    Autograd's own backward makes a zero tensor of the size of the embedding for every slice; this one adds up in
    place, which is several times faster.
    """

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor, pairs: list[tuple[Index, Index]]) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(vectors)
        ctx.pairs = pairs
        return tuple((crop(vectors, here) * crop(vectors, there)).sum(1) for here, there in pairs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (vectors,) = ctx.saved_tensors
        total = torch.zeros_like(vectors)
        for (here, there), gradient in zip(ctx.pairs, gradients, strict=True):
            per_channel = gradient.unsqueeze(1)
            crop(total, here).addcmul_(crop(vectors, there), per_channel)
            crop(total, there).addcmul_(crop(vectors, here), per_channel)
        return total, None


def crop(tensor: torch.Tensor, index: Index) -> torch.Tensor:
    """The part of (..., *spatial) that an index of the spatial axes selects."""
    ellipsis_first: tuple[Any, ...] = (..., *index)
    return tensor[ellipsis_first]


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
