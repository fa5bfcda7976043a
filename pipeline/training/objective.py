"""What a network is trained for: supervision by labels, and for a student what it copies from its teacher."""

from __future__ import annotations

import torch
from torch import nn

from ..config import DistillationConfig, Offset
from ..distillation import GraphRelationDistillation, SupervisedAffinityLoss
from ..networks import EmbeddingNetwork
from ..volumes import Box
from .embedding import embed
from .schedule import warm_up_share

Terms = dict[str, torch.Tensor]


class Distiller(nn.Module):
    """A frozen teacher and the losses that compare a student with it.

    Args:
        teacher: frozen here; it is no part of this module's parameters or state.
        losses: the distillation terms, with their state.
        student_part, teacher_part: what each network embeds of a patch, counted from the patch's first voxel.
        warm_up: iterations over which the terms gain their weight.
        autocast: reduced precision for the teacher, or None.
    """

    def __init__(
        self,
        teacher: EmbeddingNetwork,
        losses: GraphRelationDistillation,
        student_part: Box,
        teacher_part: Box,
        warm_up: int,
        autocast: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.losses = losses
        self.warm_up = warm_up
        self.autocast = autocast
        self._teacher = (teacher.eval().requires_grad_(False),)  # in a tuple, so that torch does not register it
        common = student_part.intersect(teacher_part)
        self._of_student = (..., *common.relative_to(student_part).slices)
        self._of_teacher = (..., *common.relative_to(teacher_part).slices)

    def forward(
        self, embedding: torch.Tensor, raw: torch.Tensor, labels: torch.Tensor, iteration: int
    ) -> tuple[torch.Tensor, Terms]:
        """The weighted sum of the terms, and each term.

        Args:
            embedding: (b, d, z, y, x) of the student.
            raw: (b, 1, z, y, x) that it saw.
            labels: (b, z, y, x) int64 of the voxels that it embedded.
            iteration: counted from 0.
        """
        with torch.no_grad():
            taught = embed(self._teacher[0], raw, self.autocast)[self._of_teacher]
        total, terms = self.losses(embedding[self._of_student], taught, labels[self._of_student])
        return total * warm_up_share(iteration, self.warm_up), dict(terms)


class Objective(nn.Module):
    """The loss of a training step.

    Args:
        offsets: of the supervised affinities.
        distiller: for a student that learns from a teacher.
    """

    def __init__(self, offsets: tuple[Offset, ...], distiller: Distiller | None = None) -> None:
        super().__init__()
        self.supervised = SupervisedAffinityLoss(offsets)
        self.distiller = distiller

    def forward(
        self,
        embedding: torch.Tensor,
        raw: torch.Tensor,
        labels: torch.Tensor,
        affinities: torch.Tensor,
        mask: torch.Tensor,
        iteration: int,
    ) -> tuple[torch.Tensor, Terms]:
        """The loss and its named terms.

        Args:
            embedding: (b, d, z, y, x) float32.
            raw: (b, 1, z, y, x) that the network saw.
            labels: (b, z, y, x) int64 of the embedded voxels.
            affinities, mask: (b, k, z, y, x) targets, and where they are known.
            iteration: counted from 0.
        """
        total = self.supervised(embedding, affinities, mask)
        terms = {"supervised": total.detach()}
        if self.distiller is not None:
            distilled, named = self.distiller(embedding, raw, labels, iteration)
            terms.update({name: value.detach() for name, value in named.items()})
            total = total + distilled
        return total, terms
