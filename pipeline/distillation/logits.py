"""Logits distillation: the student's predicted distribution at each voxel is to be the teacher's."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from .precision import full_precision

Prediction = Literal["classes", "channels", "affinities"]


class LogitsLoss(nn.Module):
    """Kullback-Leibler divergence of the student's softened prediction from the teacher's (Hinton et al., 2015).

    For logits z over classes and temperature T, with p = softmax(z / T):  T² · mean over voxels of Σ_c p^T ln(p^T/p^S).
    For channels that are affinities each channel is a distribution of its own over two outcomes, with p = σ(z / T):
    T² · mean over voxels and channels of p^T ln(p^T/p^S) + (1 − p^T) ln((1 − p^T)/(1 − p^S)).

    Args:
        temperature: T; larger ones look at the less likely outcomes, too.
        prediction: what the arguments are: logits of `classes`, logits of independent `channels`, or `affinities` in
            [0, 1], whose logits are ln(p / (1 − p)).
        least: affinities below it, or nearer to 1, count as this near; their gradients are those of the nearest that
            does not, so that an affinity (or cosine) below 0 still learns.
    """

    def __init__(self, temperature: float = 1.0, prediction: Prediction = "classes", least: float = 1e-4) -> None:
        super().__init__()
        self.temperature = temperature
        self.prediction = prediction
        self.least = least

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        """The loss.

        Args:
            student, teacher: (B, C, *spatial). The teacher gets no gradient.
            valid: (*spatial) for classes, (C, *spatial) otherwise: where predictions count. Default: everywhere.

        Raises:
            ValueError: the shapes differ.
        """
        if student.shape != teacher.shape:
            raise ValueError(f"predictions of shapes {tuple(student.shape)} and {tuple(teacher.shape)} do not compare")
        learnt, taught = self._logits(student), self._logits(teacher.detach())
        divergence = _of_classes(learnt, taught) if self.prediction == "classes" else _of_channels(learnt, taught)
        if valid is None:
            mean = divergence.mean()
        else:
            counted = valid.expand_as(divergence)
            mean = (divergence * counted).sum() / counted.sum().clamp(min=1)
        return mean * self.temperature**2

    def _logits(self, prediction: torch.Tensor) -> torch.Tensor:
        prediction = full_precision(prediction)
        if self.prediction == "affinities":
            kept = prediction.detach().clamp(self.least, 1 - self.least) + prediction - prediction.detach()
            prediction = kept.logit()
        return prediction / self.temperature


def _of_classes(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Divergence (B, *spatial) of distributions with logits (B, C, *spatial)."""
    learnt, taught = F.log_softmax(student, 1), F.log_softmax(teacher, 1)
    return (taught.exp() * (taught - learnt)).sum(1)


def _of_channels(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Divergence (B, C, *spatial) of distributions over two outcomes with logits of the same shape."""
    likely = torch.sigmoid(teacher) * (F.logsigmoid(teacher) - F.logsigmoid(student))
    unlikely = torch.sigmoid(-teacher) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return likely + unlikely
