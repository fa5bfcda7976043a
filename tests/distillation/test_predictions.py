"""What compares predictions: softened divergences, and a critic that learns beside the student."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pipeline.distillation import AdversarialLoss, Critic, LogitsLoss, Paraphraser, gradient_penalty


def bernoulli_divergence(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_divergence_of_classes_by_hand() -> None:
    student = torch.tensor([1.0, 0.0]).log1p().view(1, 2, 1, 1) * 2  # softened by 2: logits ln 2, 0, so 2/3, 1/3
    teacher = torch.zeros(1, 2, 1, 1)
    expected = 4 * (0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3)))
    assert float(LogitsLoss(temperature=2)(student, teacher)) == pytest.approx(expected)


def test_divergence_of_channels_by_hand() -> None:
    student, teacher = torch.full((1, 2, 1, 1), 3.0), torch.full((1, 2, 1, 1), -1.0)
    q, p = (1 / (1 + math.exp(-logit / 4)) for logit in (3.0, -1.0))
    expected = 16 * bernoulli_divergence(p, q)
    assert float(LogitsLoss(4, "channels")(student, teacher)) == pytest.approx(expected, rel=1e-5)


def test_affinities_are_distributions_over_two_outcomes() -> None:
    student, teacher = torch.full((2, 3, 4, 4), 0.3), torch.full((2, 3, 4, 4), 0.8)
    loss = LogitsLoss(prediction="affinities")
    assert float(loss(student, teacher)) == pytest.approx(bernoulli_divergence(0.8, 0.3), rel=1e-5)
    assert float(loss(teacher, teacher)) == pytest.approx(0, abs=1e-7)


def test_an_affinity_beyond_its_range_still_learns_without_bounds_on_the_loss() -> None:
    cosines = torch.tensor([-0.5, 0.0, 1.0]).view(1, 1, 1, 3).requires_grad_()
    loss = LogitsLoss(prediction="affinities", least=0.05)(cosines, torch.full((1, 1, 1, 3), 0.9))
    loss.backward()
    assert cosines.grad is not None
    assert (cosines.grad.flatten()[:2] < -1).all() and cosines.grad.flatten()[2] > 0
    assert cosines.grad.abs().max() < 20 and loss < 5


def test_pairs_that_leave_the_patch_do_not_count() -> None:
    teacher = torch.rand(2, 2, 4, 4)
    student = teacher.clone()
    student[:, 0, 0] = 0.5
    valid = torch.ones(2, 4, 4, dtype=torch.bool)
    valid[0, 0] = False
    loss = LogitsLoss(prediction="affinities")
    assert float(loss(student, teacher)) > 0.001
    assert float(loss(student, teacher, valid)) == pytest.approx(0, abs=1e-6)
    other = student + 0.01
    expected = loss(other[:, 1], teacher[:, 1]) * 16 + loss(other[:, :1, 1:], teacher[:, :1, 1:]) * 12
    assert float(loss(other, teacher, valid)) == pytest.approx(float(expected) / 28, rel=1e-4)


@pytest.mark.parametrize("prediction", ["classes", "channels", "affinities"])
def test_gradients_of_divergences_equal_finite_differences(prediction: str) -> None:
    student, teacher = (torch.rand(2, 3, 4, dtype=torch.float64) * 0.8 + 0.1 for _ in range(2))
    student.requires_grad_()
    teacher.requires_grad_()
    loss = LogitsLoss(3, prediction)  # type: ignore[arg-type]
    if prediction != "affinities":  # whose gradient at the ends is meant to differ
        torch.autograd.gradcheck(lambda s: loss(s, teacher), student)
    loss(student, teacher).backward()
    assert student.grad is not None and teacher.grad is None


class LinearCritic(nn.Module):
    """w · x for each image."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, prediction: torch.Tensor) -> torch.Tensor:
        return (prediction * self.weight).flatten(1).sum(1)


def test_penalty_of_a_linear_critic_by_hand() -> None:
    """Its slope is ‖w‖ everywhere: w = (3, 0, 4, 0) has the penalty (5 − 1)² and the gradient 2 (5 − 1) w / 5."""
    weight = torch.tensor([3.0, 0.0, 4.0, 0.0]).view(1, 2, 2)
    critic = LinearCritic(weight)
    penalty = gradient_penalty(critic, torch.rand(3, 1, 2, 2), torch.rand(3, 1, 2, 2), torch.rand(3))
    penalty.backward()
    assert penalty.item() == pytest.approx(16)
    assert critic.weight.grad is not None and torch.allclose(critic.weight.grad, 8 * weight / 5)


def test_losses_of_critic_and_student_by_hand() -> None:
    loss = AdversarialLoss(LinearCritic(torch.ones(1, 2, 2)))  # slope 2
    student, teacher = torch.full((2, 1, 2, 2), 0.25), torch.full((2, 1, 2, 2), 0.75)
    total, told = loss.critic_loss(student, teacher)
    assert float(total) == pytest.approx(1 - 3 + 10 * 1)
    assert {name: float(value) for name, value in told.items()} == {"critic_distance": 2, "critic_penalty": 1}
    assert float(loss(student)) == -1


@pytest.mark.parametrize("shape", [(2, 3, 20, 17), (2, 3, 1, 20, 17)], ids=["2D", "3D, one section"])
def test_critic_learns_to_tell_and_the_student_to_please(shape: tuple[int, ...]) -> None:
    loss = AdversarialLoss(Critic(3, len(shape) - 2, (4, 8, 8)), learning_rate=5e-3, steps=2)
    teacher = torch.rand(shape).round()
    student = torch.full(shape, 0.5, requires_grad=True)
    first = loss.update(student, teacher)
    for _ in range(15):
        last = loss.update(student, teacher)
    assert last["critic_distance"] > first["critic_distance"] + 0.1
    assert student.grad is None
    loss(student).backward()
    assert student.grad is not None and student.grad.abs().sum() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in loss.parameters())


def test_a_continued_critic_equals_an_undisturbed_one() -> None:
    """Optimiser, power iterations and random places included."""
    predictions = [torch.rand(2, 2, 8, 8) for _ in range(2)]
    whole = AdversarialLoss(Critic(2, 2, (4, 4)))
    whole.update(*predictions)
    continued = AdversarialLoss(Critic(2, 2, (4, 4)), seed=7)
    continued.load_state_dict(whole.state_dict())
    for loss in (whole, continued):
        loss.update(*predictions)
    assert torch.equal(whole(predictions[0]), continued(predictions[0]))


def test_critic_stays_float32_under_autocast() -> None:
    loss = AdversarialLoss(Critic(2, 2, (4, 4))).eval()
    loss.critic.eval()
    student = torch.rand(1, 2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(student).dtype == torch.float32 and torch.equal(loss(student), loss(student.clone()))
        assert loss.critic_loss(student, student)[0].dtype == torch.float32


def test_a_paraphraser_learns_to_reconstruct_and_then_changes_no_more() -> None:
    paraphraser = Paraphraser(6, 3, dimensions=2)
    features = torch.randn(4, 3, 12, 12).repeat_interleave(2, dim=1)  # six channels that say what three can
    optimizer = torch.optim.Adam(paraphraser.parameters(), lr=1e-2)
    errors = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = paraphraser.reconstruction_loss(features)
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.5 * errors[0]
    paraphraser.freeze()
    assert paraphraser(features).shape == (4, 3, 12, 12)
    assert not any(parameter.requires_grad for parameter in paraphraser.parameters())
    restored = Paraphraser(6, 3, dimensions=2)
    restored.load_state_dict(paraphraser.state_dict())
    assert torch.equal(restored(features), paraphraser(features))


def test_an_untrained_paraphraser_is_refused() -> None:
    with pytest.raises(RuntimeError, match="untrained"):
        Paraphraser(6, 3)(torch.rand(1, 6, 2, 4, 4))
