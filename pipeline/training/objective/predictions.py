"""Distillation of what the networks predict: affinities, whatever embeddings they come from."""

from __future__ import annotations

import torch
from torch import nn

from ...config import DistillationConfig
from ...distillation import (
    AdversarialLoss,
    Critic,
    EmbeddedPatch,
    GivenAffinities,
    LogitsLoss,
    cosine_to_affinity,
    padded_affinities,
)
from ...distillation.patch import Offsets

LEAST_AFFINITY = 0.05
"""Affinities of embeddings below it, or nearer to 1, are alike: no segmentation tells them apart, and their logits have
no bounds."""


class PredictionTerms(nn.Module):
    """Logits distillation, adversarial distillation, or both. The critic learns within the forward pass.

    Args:
        config: the weights and settings of both.
        offsets: of the affinities that are compared, in voxels, one number per spatial axis.
        seed: of the critic's gradient penalty.

    Attributes:
        weights: of the terms, by name.
        reported: how the critic did in the last batch.
    """

    def __init__(self, config: DistillationConfig, offsets: Offsets, seed: int) -> None:
        super().__init__()
        self.offsets = offsets
        self.weights: dict[str, float] = {}
        self.reported: dict[str, torch.Tensor] = {}
        self.logits: LogitsLoss | None = None
        self.adversarial: AdversarialLoss | None = None
        if config.logits is not None:
            self.weights["logits"] = config.logits.weight
            self.logits = LogitsLoss(config.logits.temperature, "affinities", LEAST_AFFINITY)
        if config.adversarial is not None:
            self.weights["adversarial"] = config.adversarial.weight
            self.adversarial = AdversarialLoss(
                Critic(len(offsets), len(offsets[0]), config.adversarial.critic_widths),
                penalty_weight=config.adversarial.penalty,
                learning_rate=config.adversarial.critic_learning_rate,
                steps=config.adversarial.critic_steps,
                seed=seed,
            )

    def forward(self, student: EmbeddedPatch, teacher: EmbeddedPatch | GivenAffinities) -> dict[str, torch.Tensor]:
        """The terms by name, of the same voxels by both. Of given affinities, the critic sees unknown ones as 0, of the
        student as of the teacher.
        """
        learnt, valid = padded_affinities(student, self.offsets)
        taught, _ = padded_affinities(teacher, self.offsets)
        if isinstance(teacher, GivenAffinities):
            known = taught >= 0
            valid, learnt, taught = valid & known, learnt * known, taught * known
        terms = {}
        if self.logits is not None:
            terms["logits"] = self.logits(learnt, taught, valid)
        if self.adversarial is not None:
            fake, real = cosine_to_affinity(learnt), cosine_to_affinity(taught)
            if self.training:
                self.reported = self.adversarial.update(fake, real)
            terms["adversarial"] = self.adversarial(fake)
        return terms
