"""What a student copies from given affinities: the terms of distillation that look at affinities alone."""

from __future__ import annotations

import torch
from torch import nn

from ...config import DistillationConfig, Offset
from ...distillation import AffinityGraphLoss, EmbeddedPatch, GivenAffinities
from ...errors import UserError
from ...volumes import Box
from .embedding import spatial
from .given_teachers import GivenTeacher
from .predictions import PredictionTerms
from .schedule import warm_up_share
from .step_clock import PREDICTIONS, RELATIONS, TEACHER, Part, untimed
from .views import Layers, as_sections

Terms = dict[str, torch.Tensor]


class AffinityDistiller(nn.Module):
    """The affinity graph, logits and adversarial distillation, from affinities that a teacher gives without embeddings.

    Args:
        config: terms and weights.
        offsets: in which student and teacher are compared.
        part: the voxels of a patch that the student embeds.
        teacher: gives affinities; no part of this module's parameters or state.
        seed: of the critic's gradient penalty.
        images: compare section by section; no offset has a z component.

    Raises:
        UserError: student and teacher have no voxel of a patch in common.
    """

    layers: tuple[str, ...] = ()

    def __init__(
        self,
        config: DistillationConfig,
        offsets: tuple[Offset, ...],
        part: Box,
        teacher: GivenTeacher,
        *,
        seed: int,
        images: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.images = images
        self._teacher = (teacher,)  # in a tuple, so that torch does not take it for a part of this module
        self.part, self.common = part, part.intersect(teacher.part)
        if self.common.size == 0:
            raise UserError(
                "teacher and student see no common voxel of a patch; make it larger", "student.training.patch_shape"
            )
        self.offsets = tuple(offset[1:] for offset in offsets) if images else offsets
        balanced = config.affinity_comparison == "balanced"
        self.affinity_graph = AffinityGraphLoss(self.offsets, balanced=balanced) if config.affinity_weight else None
        self.predictions = PredictionTerms(config, self.offsets, seed) if config.logits or config.adversarial else None

    def weights(self, iteration: int) -> dict[str, float]:
        """The weight of each term that is computed in an iteration, warm-up included."""
        share = warm_up_share(iteration, self.config.warm_up)
        weights = {"affinity": self.config.affinity_weight} if self.affinity_graph is not None else {}
        weights |= {} if self.predictions is None else self.predictions.weights
        return {name: weight * share for name, weight in weights.items()}

    def forward(
        self,
        embedded: EmbeddedPatch,
        layers: Layers,
        batch: dict[str, torch.Tensor],
        iteration: int,
        part: Part = untimed,
    ) -> tuple[torch.Tensor, Terms]:
        """The weighted sum of the terms, and each term.

        Args:
            embedded: (b, d, z, y, x) by the student.
            layers: its tapped features, of which none is compared.
            batch: `raw` (b, 1, z, y, x) that it saw, and what else the teacher needs.
            iteration: counted from 0.
            part: in whose contexts the parts of the step run.
        """
        teacher = self._teacher[0]
        with torch.no_grad(), part(TEACHER):
            taught = self._common_part(teacher(batch), teacher.part)
        if self.common != self.part:
            inside = spatial(self.common.relative_to(self.part))
            embedded = embedded.changed(lambda output: output[inside])
        if self.images:
            embedded = embedded.changed(as_sections, [offset[1:] for offset in embedded.affinity_offsets])
        terms: Terms = {}
        if self.affinity_graph is not None:
            with part(RELATIONS):
                terms["affinity"] = self.affinity_graph.compare(embedded, taught)
        if self.predictions is not None:
            with part(PREDICTIONS):
                terms |= self.predictions(embedded, taught)
        weights = self.weights(iteration)
        total = (
            torch.stack([weights[name] * value for name, value in terms.items()]).sum()
            if terms
            else embedded.output[:0].sum()
        )
        reported = {} if self.predictions is None else self.predictions.reported
        return total, {name: value.detach() for name, value in terms.items()} | reported

    def _common_part(self, given: GivenAffinities, part: Box) -> GivenAffinities:
        affinities = given.values[spatial(self.common.relative_to(part))]
        if not self.images:
            return GivenAffinities(affinities, given.offsets)
        within = [channel for channel, offset in enumerate(given.offsets) if offset[0] == 0]
        return GivenAffinities(as_sections(affinities[:, within]), [given.offsets[channel][1:] for channel in within])
