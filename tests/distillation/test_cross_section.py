"""Affinities between a student's section and a teacher's neighbouring ones, against a loop over voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from naive_losses import cosine

from pipeline.distillation import CrossSectionLoss, EmbeddedPatch

SHAPE = (3, 4, 5)


def sample(widths: tuple[int, int]) -> tuple[EmbeddedPatch, EmbeddedPatch, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn((2, width, *SHAPE), generator=generator) for width in widths)
    together = torch.randint(2, (2, *SHAPE), generator=generator, dtype=torch.uint8)
    known = (torch.rand((2, *SHAPE), generator=generator) < 0.8).to(torch.uint8)
    return EmbeddedPatch(student.requires_grad_()), EmbeddedPatch(teacher), together, known


def by_loops(student: torch.Tensor, teacher: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> float:
    """Target and known of the pair of voxel z, y, x and z - 1, y, x."""
    pairs = [voxel for voxel in np.ndindex(*known.shape) if voxel[1] > 0 and known[voxel]]
    share = min(0.98, max(0.02, sum(float(target[voxel]) for voxel in pairs) / len(pairs)))
    squares, weights = 0.0, 0.0
    for b, z, y, x in pairs:
        t = float(target[b, z, y, x])
        weight = t / (2 * share) + (1 - t) / (2 * (1 - share))
        for own, other in ((z, z - 1), (z - 1, z)):
            c = float(cosine(student[b, :, own, y, x].double(), teacher[b, :, other, y, x].double()))
            squares += weight / 2 * ((c - t) ** 2 if t > 0 else max(c, 0.0) ** 2)
        weights += weight
    return squares / weights


@pytest.mark.parametrize("widths", [(4, 4), (3, 6)])
def test_the_labels_say_what_is_to_be_alike_across_sections(widths: tuple[int, int]) -> None:
    torch.manual_seed(1)
    student, teacher, together, known = sample(widths)
    loss = CrossSectionLoss(widths)
    found = loss(student, teacher, (together, known))
    embedding = student.embedding.detach()
    if loss.projection is not None:
        embedding = torch.einsum("ds,bszyx->bdzyx", loss.projection.weight[:, :, 0, 0, 0].detach(), embedding)
    assert (loss.projection is None) == (widths[0] == widths[1])
    assert found.item() == pytest.approx(by_loops(embedding, teacher.embedding, together, known), rel=1e-4)
    found.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in loss.parameters())


@pytest.mark.parametrize("plain", [False, True])
def test_the_teacher_says_it_where_there_are_no_labels(plain: bool) -> None:
    student, teacher, _, _ = sample((4, 4))
    target = torch.zeros((2, *SHAPE))
    if plain:
        logits = torch.randn((2, 1, *SHAPE), generator=torch.Generator().manual_seed(5))
        teacher = EmbeddedPatch(torch.cat([teacher.embedding, logits], 1), affinity_offsets=[(-1, 0, 0)])
        target[:] = torch.sigmoid(logits[:, 0])
    else:
        for b, z, y, x in np.ndindex(*target.shape):
            if z > 0:
                pair = teacher.embedding[b, :, z, y, x], teacher.embedding[b, :, z - 1, y, x]
                target[b, z, y, x] = cosine(*pair).clamp(min=0)
    found = CrossSectionLoss((4, 4))(student, teacher)
    expected = by_loops(student.embedding.detach(), teacher.embedding, target, torch.ones_like(target))
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_what_is_not_known_does_not_count_and_nothing_goes_to_the_teacher() -> None:
    student, teacher, together, known = sample((4, 4))
    loss, shown = CrossSectionLoss((4, 4)), teacher.embedding.clone().requires_grad_()
    found = loss(student, EmbeddedPatch(shown), (together, known))
    flipped = torch.where(known > 0, together, 1 - together)
    assert loss(student, teacher, (flipped, known)) == found
    found.backward()
    assert shown.grad is None
    nothing = loss(student, teacher, (together, known * 0))
    assert nothing == 0 and nothing.requires_grad


def test_an_embedding_like_the_teachers_own_has_no_loss_where_its_sections_agree() -> None:
    """A volume that is the same in all sections, in which all belongs together."""
    one = torch.randn((1, 4, 1, 4, 5), generator=torch.Generator().manual_seed(2)).expand(-1, -1, 3, -1, -1)
    every = torch.ones((1, *SHAPE))
    loss = CrossSectionLoss((4, 4))
    assert loss(EmbeddedPatch(one), EmbeddedPatch(one), (every, every)) < 1e-10
    assert loss(EmbeddedPatch(one.flip(3)), EmbeddedPatch(one), (every, every)) > 0.1
