"""Affinities of voxel embeddings: how alike two voxels at a fixed offset look to a network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .balance import balanced_weights
from .given import GivenAffinities
from .maps import crop
from .patch import EmbeddedPatch, Offsets


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
    return padded_affinities(EmbeddedPatch(embedding, least_length), offsets)


def padded_affinities(patch: EmbeddedPatch | GivenAffinities, offsets: Offsets) -> tuple[torch.Tensor, torch.Tensor]:
    """What `embedding_affinities` gives, of a patch that may have plain affinities, too; of given ones, the unknown are
    below 0.
    """
    spatial = patch.shape[2:]
    affinities, valid = [], []
    for here, cosines in patch.affinities(offsets):
        margins = [(axis.start, extent - axis.stop) for axis, extent in zip(here, spatial, strict=True)]
        affinities.append(F.pad(cosines, [m for margin in reversed(margins) for m in margin]))
        inside = torch.zeros(spatial, dtype=torch.bool, device=cosines.device)
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
            alike, as published, which is mostly the inside of neurites. Balanced, plain affinities of the student are
            compared by their Kullback-Leibler divergence in place of squares, whose slope their sigmoid would take.
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
        of_student, of_teacher = self.least_lengths
        return self.compare(EmbeddedPatch(student, of_student), EmbeddedPatch(teacher.detach(), of_teacher))

    def compare(self, student: EmbeddedPatch, teacher: EmbeddedPatch | GivenAffinities) -> torch.Tensor:
        """The loss of patches of the same extent; the teacher's carries no gradient. Given affinities that are unknown
        do not count.
        """
        both = zip(self.offsets, student.affinities(self.offsets), teacher.affinities(self.offsets), strict=True)
        sums, pairs = [], []
        for offset, (here, learnt), (_, taught) in both:
            logits = student.logits(offset) if self.balanced else None
            said = learnt if logits is None else crop(logits, here)
            if isinstance(teacher, GivenAffinities):
                known = taught >= 0
                said, taught = said[known], taught[known]
            sums.append(self._squares(said, taught) if logits is None else _divergence(said, taught))
            pairs.append(taught.numel())
        if self.balanced:
            means = [total / count for total, count in zip(sums, pairs, strict=True) if count]
            return torch.stack(means or sums).mean()
        return torch.stack(sums).sum() / max(1, sum(pairs))

    def _squares(self, learnt: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Sum of the weighted squared differences of the cosines of one offset, of any shape."""
        if not self.balanced:
            return F.mse_loss(learnt, taught, reduction="sum")
        affinity = cosine_to_affinity(taught)
        unlike = torch.where(affinity > 0, learnt - affinity, F.relu(learnt))
        return (balanced_weights(affinity) * unlike.square()).sum()


def _divergence(logits: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    """Sum of the weighted divergences of plain affinities from the teacher's, of one offset, (B, *overlap)."""
    target = cosine_to_affinity(taught)
    least = F.binary_cross_entropy(target, target, reduction="none")  # of a student that says the same
    missed = F.binary_cross_entropy_with_logits(logits, target, reduction="none") - least
    return (balanced_weights(target) * missed).sum()
