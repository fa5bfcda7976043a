"""Adversarial distillation: a critic learns to tell the student's predictions from the teacher's; the student, to
please it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .precision import full_precision, no_autocast


class AdversarialLoss(nn.Module):
    """Wasserstein distance of predictions, estimated by a critic with gradient penalty (WGAN-GP, Gulrajani et al.
    2017).

    Real is the teacher's prediction, fake the student's. The critic D minimises

        mean D(fake) − mean D(real) + penalty_weight · mean (‖∇D(x)‖₂ − 1)²,  x at random between real and fake,

    and the student −mean D(fake). The critic's parameters belong to its own optimiser and never require gradients
    outside `update`, so that no other optimiser takes them. Critic, optimiser and random state are in the `state_dict`.

    Args:
        critic: (B, C, *spatial) to one number per image, (B,); for example `Critic`.
        penalty_weight: of the gradient penalty.
        learning_rate: of the critic's Adam, whose moments are 0 and 0.9.
        steps: of the critic for each of the student.
        seed: of the places between real and fake.
    """

    def __init__(
        self,
        critic: nn.Module,
        *,
        penalty_weight: float = 10.0,
        learning_rate: float = 1e-4,
        steps: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.critic = critic
        self.penalty_weight = penalty_weight
        self.steps = steps
        self.optimizer = torch.optim.Adam(critic.parameters(), lr=learning_rate, betas=(0.0, 0.9))
        self._generator = torch.Generator().manual_seed(seed)
        critic.requires_grad_(False)

    def forward(self, student: torch.Tensor) -> torch.Tensor:
        """The student's loss, −mean D; its prediction (B, C, *spatial) gets the gradient, the critic none."""
        with no_autocast(student):
            loss: torch.Tensor = -self.critic(full_precision(student)).mean()
        return loss

    def critic_loss(self, student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The critic's loss on predictions (B, C, *spatial), which get no gradient, and its metrics.

        The metrics are `critic_distance`, mean D(real) − mean D(fake), and `critic_penalty`, unweighted.

        Raises:
            ValueError: the shapes differ.
        """
        if student.shape != teacher.shape:
            raise ValueError(f"predictions of shapes {tuple(student.shape)} and {tuple(teacher.shape)} do not compare")
        with no_autocast(student):
            fake, real = (full_precision(prediction.detach()) for prediction in (student, teacher))
            share = torch.rand(len(real), generator=self._generator).to(real)
            distance = self.critic(real).mean() - self.critic(fake).mean()
            penalty = gradient_penalty(self.critic, real, fake, share)
            loss = self.penalty_weight * penalty - distance
        return loss, {"critic_distance": distance.detach(), "critic_penalty": penalty.detach()}

    def update(self, student: torch.Tensor, teacher: torch.Tensor) -> dict[str, torch.Tensor]:
        """Train the critic on a batch of predictions; returns the metrics of its last step, see `critic_loss`."""
        told: dict[str, torch.Tensor] = {}
        with _learning(self.critic):
            for _ in range(self.steps):
                self.optimizer.zero_grad(set_to_none=True)
                loss, told = self.critic_loss(student, teacher)
                loss.backward()
                self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return told

    def get_extra_state(self) -> dict[str, Any]:
        """State of the critic's optimiser and of the random generator."""
        return {"optimizer": self.optimizer.state_dict(), "generator": self._generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue from the state of `get_extra_state`."""
        optimizer = copy.deepcopy(state["optimizer"])  # torch would share its tensors
        for of_parameter in optimizer["state"].values():
            of_parameter["step"] = of_parameter["step"].cpu()  # where Adam counts without waiting for the device
        self.optimizer.load_state_dict(optimizer)
        self._generator.set_state(state["generator"].cpu())


def gradient_penalty(critic: nn.Module, real: torch.Tensor, fake: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """How far the critic is from having slope 1 between real and fake: mean of (‖∇D‖₂ − 1)².

    Args:
        critic: (B, C, *spatial) to (B,).
        real, fake: (B, C, *spatial).
        share: (B,) of the real in the place where the slope is taken.
    """
    share = share.view(-1, *(1 for _ in real.shape[1:]))
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: torch.Tensor = (torch.linalg.vector_norm(slope.flatten(1), dim=1) - 1).square().mean()
    return penalty


@contextmanager
def _learning(critic: nn.Module) -> Iterator[None]:
    """The critic's parameters require gradients within this context only."""
    critic.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        critic.requires_grad_(False)
