"""The balanced comparison of affinity graphs: what a segmentation uses, where it matters."""

from __future__ import annotations

import pytest
import torch

from pipeline.distillation import AffinityGraphLoss

OFFSETS = ((-1,),)
TOWARDS, ACROSS, AGAINST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)


def line(*vectors: tuple[float, float]) -> torch.Tensor:
    """Embedding (1, 2, n) of a line of voxels."""
    return torch.tensor(vectors, dtype=torch.float64).T[None].clone()


def balanced(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The loss on neighbours."""
    loss: torch.Tensor = AffinityGraphLoss(OFFSETS, balanced=True)(student, teacher)
    return loss


def test_a_student_equal_to_its_teacher_has_nothing_to_learn() -> None:
    embedding = torch.randn((2, 4, 30), generator=torch.Generator().manual_seed(0))
    assert balanced(embedding, embedding) == 0


def test_a_boundary_missed_counts_as_much_as_all_of_the_inside_missed() -> None:
    teacher = line(*[TOWARDS] * 5, *[ACROSS] * 5)  # nine pairs, one of them a boundary
    boundary_missed = line(*[TOWARDS] * 10)
    inside_missed = line(*[TOWARDS, ACROSS] * 2, TOWARDS, ACROSS, *[TOWARDS, ACROSS] * 2)
    assert balanced(boundary_missed, teacher) == pytest.approx(0.5)
    assert balanced(inside_missed, teacher) == pytest.approx(0.5)


def test_opposite_embeddings_are_as_good_as_unrelated_ones() -> None:
    teacher = line(TOWARDS, ACROSS, ACROSS)
    student = line(TOWARDS, AGAINST, AGAINST)
    assert balanced(student, teacher) == 0
    assert AffinityGraphLoss(OFFSETS)(student, teacher) > 0


def test_opposite_embeddings_are_pulled_together_where_the_teacher_joins_them() -> None:
    teacher = line(TOWARDS, TOWARDS)
    student = line(TOWARDS, (-1.0, 0.1)).requires_grad_()
    balanced(student, teacher).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


def test_offsets_with_few_pairs_in_a_flat_patch_count_as_much_as_others() -> None:
    """Training patches are a few sections deep: pairs along z are few, and the student forgot them."""
    teacher = torch.zeros(1, 2, 3, 12, 12, dtype=torch.float64)
    teacher[:, 0] = 1  # everything belongs together
    along_z = teacher.clone()
    along_z[:, :, 1] = torch.tensor((0.0, 1.0), dtype=torch.float64)[
        None, :, None, None
    ]  # only pairs along z are missed
    offsets = ((-2, 0, 0), (-1, 0, 0), (0, -1, 0), (0, 0, -1))
    assert AffinityGraphLoss(offsets, balanced=True)(along_z, teacher) == pytest.approx(
        AffinityGraphLoss(((-1, 0, 0),), balanced=True)(along_z, teacher) / len(offsets)
    )
    assert AffinityGraphLoss(offsets)(along_z, teacher) < AffinityGraphLoss(((-1, 0, 0),))(along_z, teacher) / 4


def test_an_offset_longer_than_the_patch_leaves_the_others_their_say() -> None:
    teacher, student = line(TOWARDS, TOWARDS), line(TOWARDS, ACROSS)
    both = AffinityGraphLoss((*OFFSETS, (-5,)), balanced=True)
    assert both(student, teacher) == balanced(student, teacher) > 0
