"""Gradients are right, reach the student only, and survive patches without neurites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.distillation import (
    AffinityGraphLoss,
    EmbeddedPatch,
    GraphRelationDistillation,
    InstanceGraphLoss,
    InterImageGraphLoss,
    LayerFeatures,
    MemoryBank,
    SupervisedAffinityLoss,
    maps,
)

OFFSETS = [(-1, 0), (0, -1), (2, -1), (0, 9)]
SHAPE = (4, 5)
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def remembered() -> MemoryBank:
    bank = MemoryBank(4, pool=(2, 2))
    bank.enqueue(torch.randn(2, 3, *SHAPE, dtype=torch.float64), torch.randint(0, 3, (2, *SHAPE)))
    return bank


def losses() -> dict[str, Loss]:
    entries = remembered().sample(4)
    inter = InterImageGraphLoss(0.5, 2.0, pool=(2, 2))
    affinities, mask = torch.randint(0, 2, (2, 2, 4, *SHAPE)).unbind()
    supervised, affinity = SupervisedAffinityLoss(OFFSETS), AffinityGraphLoss(OFFSETS)
    complete = GraphRelationDistillation(OFFSETS, inter_edge_weight=1, inter_affinity_weight=4, pool=(2, 2)).eval()
    complete.memory.set_extra_state(remembered().get_extra_state())
    return {
        "instances": InstanceGraphLoss(0.3, 0.7),
        "affinities": lambda s, t, labels: affinity(s, t),
        "inter-image": lambda s, t, labels: inter(s, t, labels, entries),
        "supervised": lambda s, t, labels: supervised(s, affinities, mask),
        "complete": lambda s, t, labels: complete(s, t, labels)[0],
    }


each_loss = pytest.mark.parametrize("name", ["instances", "affinities", "inter-image", "supervised", "complete"])


@each_loss
def test_gradients_equal_finite_differences(name: str) -> None:
    loss = losses()[name]
    student = torch.randn(2, 3, *SHAPE, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, *SHAPE, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, *SHAPE))
    assert loss(student, teacher, labels).dtype == torch.float64
    torch.autograd.gradcheck(lambda s: loss(s, teacher, labels), student)


@pytest.fixture(params=[1, 80, 1 << 18], ids=["one channel", "two of three channels", "all channels"])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large maps are worked on a few channels at a time, small ones, like those of these tests, all at once."""
    monkeypatch.setitem(maps.BLOCK, "cpu", request.param)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("term", ["node", "edge", "affinity", "inter_edge", "inter_affinity"])
def test_gradient_of_each_term_equals_finite_differences(term: str) -> None:
    """With an inner layer and its projection."""
    weights: dict[str, Any] = dict.fromkeys(("node_weight", "edge_weight", "affinity_weight"), 0.0) | {
        f"{term}_weight": 1.0
    }
    module = GraphRelationDistillation(OFFSETS, **weights, pool=(2, 2), projections={"inner": (2, 5)})
    module.double().eval()
    module.memory.set_extra_state(remembered().get_extra_state())
    student, inner = (torch.randn(2, c, *SHAPE, dtype=torch.float64, requires_grad=True) for c in (3, 2))
    teacher, taught = (torch.randn(2, c, *SHAPE, dtype=torch.float64) for c in (3, 5))
    labels = torch.randint(0, 3, (2, *SHAPE))

    def value(student: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
        layers = [{"inner": LayerFeatures(features, (1, 1), (0, 0))} for features in (inner, taught)]
        total, terms = module(student, teacher, labels, student_layers=layers[0], teacher_layers=layers[1])
        assert set(terms) == {term} and total > 0
        result: torch.Tensor = total + 0 * inner.sum()  # inter-image terms know no layers
        return result

    torch.autograd.gradcheck(value, (student, inner))


def test_values_do_not_depend_on_the_channels_worked_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, labels = torch.randn(2, 3, *SHAPE), torch.randn(2, 3, *SHAPE), torch.randint(0, 3, (2, *SHAPE))
    values = []
    for block in (1, 80, 1 << 18):
        monkeypatch.setitem(maps.BLOCK, "cpu", block)
        torch.manual_seed(1)
        values.append(torch.stack([loss(student, teacher, labels) for loss in losses().values()]))
    torch.testing.assert_close(values[0], values[2])
    torch.testing.assert_close(values[1], values[2])


def test_losses_that_share_a_patch_give_what_they_give_alone() -> None:
    affinities, mask = torch.randint(0, 2, (2, 2, 4, *SHAPE)).unbind()
    teacher, labels = torch.randn(2, 3, *SHAPE), torch.randint(0, 3, (2, *SHAPE))
    supervised, distilled = SupervisedAffinityLoss(OFFSETS), GraphRelationDistillation(OFFSETS).eval()
    results = []
    student = torch.randn(2, 3, *SHAPE, requires_grad=True)
    for shared in (student, EmbeddedPatch(student)):
        total = supervised(shared, affinities, mask) + distilled(shared, teacher, labels)[0]
        results.append((total.detach(), *torch.autograd.grad(total, student)))
    for alone, together in zip(*results, strict=True):
        torch.testing.assert_close(together, alone)


@each_loss
def test_teacher_gets_no_gradient(name: str) -> None:
    student = torch.randn(2, 3, *SHAPE, requires_grad=True)
    teacher = torch.randn(2, 3, *SHAPE, requires_grad=True)
    losses()[name](student, teacher, torch.randint(0, 3, (2, *SHAPE))).backward()
    assert teacher.grad is None
    assert student.grad is not None and student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["edges", "affinities", "inter-image", "supervised"])
def test_gradient_comes_from_norms_too(name: str) -> None:
    """A cosine does not change along the embedding, so its gradient is orthogonal to it; detached norms break that."""
    loss: Loss = InstanceGraphLoss(0, 1) if name == "edges" else losses()[name]
    student = torch.randn(2, 3, *SHAPE, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(1, 41).view(2, *SHAPE)  # one voxel per instance
    loss(student, torch.randn(2, 3, *SHAPE, dtype=torch.float64), labels).backward()
    assert student.grad is not None and student.grad.abs().sum() > 0
    torch.testing.assert_close((student.grad * student).sum(1), torch.zeros_like(student[:, 0]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["instances", "inter-image", "complete"])
@pytest.mark.parametrize("value", [0, -3])
def test_patch_without_instances_gives_zero_with_a_graph(name: str, value: int) -> None:
    student = torch.randn(2, 3, *SHAPE, requires_grad=True)
    teacher = student.detach().clone()
    total = losses()[name](student, teacher, torch.full((2, *SHAPE), value))
    assert total.item() == pytest.approx(0, abs=1e-9) and total.requires_grad
    total.backward()
    assert student.grad is not None and bool(student.grad.isfinite().all())


def test_patch_without_instances_leaves_node_and_edge_zero() -> None:
    student, teacher = torch.randn(2, 3, *SHAPE, requires_grad=True), torch.randn(2, 3, *SHAPE)
    loss = InstanceGraphLoss(1, 1)(student, teacher, torch.zeros(2, *SHAPE, dtype=torch.int64))
    assert loss.item() == 0 and loss.requires_grad


def test_image_without_instances_does_not_dilute_the_others() -> None:
    student, teacher = torch.randn(2, 3, *SHAPE), torch.randn(2, 3, *SHAPE)
    labels = torch.randint(1, 3, (2, *SHAPE))
    labels[1] = 0
    loss = InstanceGraphLoss(1, 1)
    torch.testing.assert_close(loss(student, teacher, labels), loss(student[:1], teacher[:1], labels[:1]))


def test_nothing_supervised_gives_zero_with_a_graph() -> None:
    embedding = torch.randn(1, 3, *SHAPE, requires_grad=True)
    targets = torch.zeros(1, 4, *SHAPE)
    loss = SupervisedAffinityLoss(OFFSETS)(embedding, targets, targets)
    assert loss.item() == 0 and loss.requires_grad


def test_patch_smaller_than_every_offset_gives_zero_with_a_graph() -> None:
    student = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = AffinityGraphLoss([(5, 0), (0, -9)])(student, torch.randn(1, 3, 2, 2))
    assert loss.item() == 0 and loss.requires_grad


@each_loss
def test_zero_embedding_gives_no_nan(name: str) -> None:
    student = torch.zeros(2, 3, *SHAPE, requires_grad=True)
    labels = torch.randint(0, 3, (2, *SHAPE))
    losses()[name](student, torch.zeros(2, 3, *SHAPE), labels).backward()
    assert student.grad is not None and bool(student.grad.isfinite().all())


def test_vectors_too_short_for_a_direction_are_scaled_by_a_constant() -> None:
    """Their gradient is that constant along every axis, not a projection."""
    embedding = torch.tensor([[[1e-9]], [[0.0]]], dtype=torch.float64)[None].requires_grad_()
    unit = maps.unit_map(embedding)
    assert unit.flatten().tolist() == pytest.approx([0.1, 0])
    unit.sum().backward()
    assert embedding.grad is not None
    assert embedding.grad.flatten().tolist() == pytest.approx([1e8, 1e8])


@each_loss
def test_cosines_stay_float32_under_autocast(name: str) -> None:
    loss = losses()[name]
    student, teacher = torch.randn(2, 3, *SHAPE).bfloat16(), torch.randn(2, 3, *SHAPE).bfloat16()
    labels = torch.randint(0, 3, (2, *SHAPE))
    outside = loss(student.float(), teacher.float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(student, teacher, labels)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, outside, rtol=1e-5, atol=0)


@each_loss
def test_unfit_shapes_are_refused(name: str) -> None:
    labels = torch.zeros(2, 4, 6, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"do not fit|embed|expected"):
        losses()[name](torch.randn(2, 3, 4, 6), torch.randn(2, 3, *SHAPE), labels)
