"""Inner layers: labels on their field of view, trained projections, offsets of their own resolution."""

from __future__ import annotations

import pytest
import torch

from pipeline.distillation import GraphRelationDistillation, InstanceGraphLoss, LayerFeatures
from pipeline.distillation.layer_features import align, coarse_offsets

OFFSETS = [(-1, 0, 0), (0, -1, 0), (0, 0, -4)]


def ramp(size: int, begin: int, step: int) -> torch.Tensor:
    """Features (1, 1, size) that name the voxel in their middle."""
    return (torch.arange(size) * step + begin + step // 2).view(1, 1, size)


@pytest.mark.parametrize(
    ("step", "student_begin", "student_size", "teacher_begin", "teacher_size", "labelled"),
    [(1, 0, 20, 0, 20, 20), (3, -2, 20, -8, 30, 50), (2, 4, 5, 0, 9, 30), (4, -8, 9, 4, 9, 13), (3, 1, 9, -5, 3, 20)],
)
def test_features_meet_the_label_of_their_middle_voxel(
    step: int, student_begin: int, student_size: int, teacher_begin: int, teacher_size: int, labelled: int
) -> None:
    labels = torch.arange(labelled)[None]
    student = LayerFeatures(ramp(student_size, student_begin, step), (step,), (student_begin,))
    teacher = LayerFeatures(ramp(teacher_size, teacher_begin, step), (step,), (teacher_begin,))
    of_student, of_teacher, of_labels = align(student, teacher, labels)
    assert torch.equal(of_student[:, 0], of_labels)
    assert torch.equal(of_teacher[:, 0], of_labels)
    common = set(student.features.flatten().tolist()) & set(teacher.features.flatten().tolist()) & set(range(labelled))
    assert of_labels[0].tolist() == sorted(common)


def test_layers_that_do_not_lie_on_each_other_are_refused() -> None:
    labels = torch.zeros(1, 20)
    student = LayerFeatures(ramp(9, 0, 2), (2,), (0,))
    for teacher in (LayerFeatures(ramp(9, 1, 2), (2,), (1,)), LayerFeatures(ramp(9, 0, 4), (4,), (0,))):
        with pytest.raises(ValueError, match="do not lie on each other"):
            align(student, teacher, labels)
    far = LayerFeatures(ramp(9, 40, 2), (2,), (40,))
    with pytest.raises(ValueError, match="no feature of this layer"):
        align(far, far, labels)


def test_offsets_keep_their_direction_in_coarse_layers() -> None:
    assert coarse_offsets([(-1, 0, 0), (0, -1, 0), (0, -2, 0), (0, 0, -12), (-3, 5, 0)], (1, 2, 2)) == (
        (-1, 0, 0),
        (0, -1, 0),
        (0, 0, -6),
        (-3, 3, 0),
    )


def layers(channels: int, seed: int) -> dict[str, LayerFeatures]:
    features = torch.randn(2, channels, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return {"decoder_1": LayerFeatures(features.requires_grad_(True), (1, 2, 2), (0, 0, 0))}


def patch(channels: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = (4, 16, 16)
    return torch.randn(2, 4, *shape), torch.randn(2, channels, *shape), torch.randint(0, 5, (2, *shape))


def test_terms_are_means_over_the_embedding_and_the_layers() -> None:
    student, teacher, labels = patch()
    module = GraphRelationDistillation(OFFSETS)
    _, outer = module(student, teacher, labels)
    of_student, of_teacher = layers(3, 0), layers(3, 1)
    _, both = module(student, teacher, labels, student_layers=of_student, teacher_layers=of_teacher)
    inner = InstanceGraphLoss(1, 0)(
        of_student["decoder_1"].features, of_teacher["decoder_1"].features, labels[:, :, 1::2, 1::2]
    )
    torch.testing.assert_close(both["node"], (outer["node"] + inner.detach()) / 2)


def test_projection_is_trained_and_saved() -> None:
    module = GraphRelationDistillation(OFFSETS, projections={"decoder_1": (3, 6), "embedding": (4, 5)})
    before = {name: value.clone() for name, value in module.named_parameters()}
    assert set(before) == {
        "projections.decoder_1.weight",
        "projections.decoder_1.bias",
        "projections.embedding.weight",
        "projections.embedding.bias",
    }
    student, teacher, labels = patch(channels=5)
    losses = []
    for _ in range(3):
        total, terms = module(student, teacher, labels, student_layers=layers(3, 0), teacher_layers=layers(6, 1))
        gradients = torch.autograd.grad(total, list(module.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter.sub_(gradient)
        losses.append(float(terms["node"]))
    assert losses[2] < losses[1] < losses[0]
    assert all(not torch.equal(before[name], value) for name, value in module.named_parameters())
    assert set(before) <= set(module.state_dict())


def test_cosines_need_no_projection() -> None:
    student, teacher, labels = patch(channels=7)
    module = GraphRelationDistillation(OFFSETS, node_weight=0)
    _, terms = module(student, teacher, labels, student_layers=layers(3, 0), teacher_layers=layers(6, 1))
    assert set(terms) == {"edge", "affinity"}


def test_missing_projection_is_refused() -> None:
    student, teacher, labels = patch(channels=7)
    with pytest.raises(ValueError, match="project the student's"):
        GraphRelationDistillation(OFFSETS)(student, teacher, labels)


def test_layers_of_one_network_only_are_refused() -> None:
    student, teacher, labels = patch()
    with pytest.raises(ValueError, match="cannot be compared"):
        GraphRelationDistillation(OFFSETS)(student, teacher, labels, student_layers=layers(3, 0))


def test_gradient_reaches_the_students_layer_only() -> None:
    student, teacher, labels = patch()
    of_student, of_teacher = layers(3, 0), layers(3, 1)
    total, _ = GraphRelationDistillation(OFFSETS)(
        student, teacher, labels, student_layers=of_student, teacher_layers=of_teacher
    )
    total.backward()
    assert of_student["decoder_1"].features.grad is not None
    assert of_teacher["decoder_1"].features.grad is None
