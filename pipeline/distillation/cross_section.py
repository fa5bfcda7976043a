"""Affinities across networks: the student's embedding of a section against the teacher's of the sections beside it.

After cross-dimension affinity distillation (Liu et al., CVPR 2024), for anisotropic tissue, where a light student sees
one or a few sections and a teacher many.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .affinities import cosine_to_affinity
from .balance import balanced_weights
from .maps import unit_map
from .patch import EmbeddedPatch
from .precision import no_autocast

PREVIOUS_SECTION = (-1, 0, 0)


class CrossSectionLoss(nn.Module):
    """The cosine of the student's embedding of a voxel and the teacher's of the voxel before or behind it is to be the
    affinity of the two.

    Args:
        channels: of the student's and the teacher's embeddings. Where they differ, the student's pass a trained linear
            map, which belongs to the training.
    """

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        student, teacher = channels
        self.projection = nn.Conv3d(student, teacher, 1, bias=False) if student != teacher else None

    def forward(
        self, student: EmbeddedPatch, teacher: EmbeddedPatch, labels: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """The squared difference, weighted as the balanced affinity graph, mean over the known pairs, then over both
        directions.

        Args:
            student: (B, D, z, y, x).
            teacher: (B, D', z, y, x) of the same voxels; gets no gradient.
            labels: affinity of each voxel and the one of the section before, and where that is known, each (B, z, y,
                x). Default: the affinities that the teacher gives, everywhere.
        """
        unit, shown = self._unit(student), teacher.unit.detach()
        if labels is None:
            ((_, between),) = teacher.affinities([PREVIOUS_SECTION])
            target = cosine_to_affinity(between.detach())
            known = torch.ones_like(target)
        else:
            target, known = (one[:, 1:].to(unit.dtype) for one in labels)
        before, behind = (slice(None), slice(None), slice(None, -1)), (slice(None), slice(None), slice(1, None))
        weights = balanced_weights(target, known)
        squares = [
            _unlike((unit[own] * shown[other]).sum(1), target).square()
            for own, other in ((behind, before), (before, behind))
        ]
        total: torch.Tensor = (weights * torch.stack(squares).mean(0)).sum() / weights.sum().clamp(min=1e-6)
        return total

    def _unit(self, student: EmbeddedPatch) -> torch.Tensor:
        if self.projection is None:
            return student.unit
        with no_autocast(student.embedding):
            return unit_map(self.projection(student.embedding), student.least_length)


def _unlike(cosines: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """How far cosines are from affinities: where there is none, any negative cosine is as good as 0."""
    return torch.where(target > 0, cosines - target, F.relu(cosines))
