"""Plain affinities: cross-entropy from labels and divergence from a teacher, against sums written out."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.distillation import AffinityGraphLoss, EmbeddedPatch, SupervisedAffinityLoss
from pipeline.distillation.affinities import padded_affinities

OFFSETS = ((0, -1), (-2, 0))
HERE = {(0, -1): (slice(0, None), slice(1, None)), (-2, 0): (slice(2, None), slice(0, None))}
SHAPE = (5, 4)


def output(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((2, channels, *SHAPE), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def targets(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(2, (2, 2, *SHAPE), generator=generator, dtype=torch.uint8) for _ in range(2))


def cross_entropy(logit: float, target: float) -> float:
    likely = 1 / (1 + math.exp(-logit))
    return -(target * math.log(likely) + (1 - target) * math.log(1 - likely))


def expected_loss(logits: torch.Tensor, affinities: torch.Tensor, mask: torch.Tensor, balanced: bool) -> float:
    means = []
    for channel, offset in enumerate(OFFSETS):
        index = (slice(None), *HERE[offset])
        pairs = [
            (float(x), float(t))
            for x, t, known in zip(
                *(one[:, channel][index].flatten() for one in (logits, affinities, mask)), strict=True
            )
            if known
        ]
        share = sum(t for _, t in pairs) / len(pairs)
        weights = [(t / (2 * share) + (1 - t) / (2 * (1 - share))) if balanced else 1.0 for _, t in pairs]
        means.append(sum(w * cross_entropy(*pair) for w, pair in zip(weights, pairs, strict=True)) / sum(weights))
    return sum(means) / len(means)


@pytest.mark.parametrize("balanced", [True, False])
def test_plain_affinities_learn_by_cross_entropy(balanced: bool) -> None:
    logits, (affinities, mask) = output(2), targets()
    loss = SupervisedAffinityLoss(OFFSETS, balanced=balanced)(EmbeddedPatch(logits, 0.0, OFFSETS), affinities, mask)
    assert float(loss) == pytest.approx(expected_loss(logits, affinities, mask, balanced), rel=1e-6)


def test_an_embedding_beside_them_learns_as_it_would_alone() -> None:
    given, (affinities, mask) = output(5), targets()
    loss = SupervisedAffinityLoss(OFFSETS)
    embedding, logits = given[:, :3], given[:, 3:]
    both = loss(EmbeddedPatch(given, 0.0, OFFSETS), affinities, mask)
    alone = loss(EmbeddedPatch(embedding), affinities, mask)
    assert float(both) == pytest.approx(float(alone) + expected_loss(logits, affinities, mask, True), rel=1e-6)
    one_plain = loss(EmbeddedPatch(given[:, :4], 0.0, OFFSETS[1:]), affinities, mask)
    assert float(one_plain) > float(alone)  # the other offset is the embedding's alone


def test_where_nothing_is_known_nothing_is_learnt() -> None:
    given, (affinities, mask) = output(2).requires_grad_(), targets()
    mask[0] = 0
    SupervisedAffinityLoss(OFFSETS)(EmbeddedPatch(given, 0.0, OFFSETS), affinities, mask).backward()
    assert given.grad is not None and not given.grad[0].any() and given.grad[1].any()


def test_a_student_learns_the_teachers_affinities_whatever_they_come_from() -> None:
    """The divergence is 0 where both say the same, and is that of two outcomes elsewhere."""
    taught = output(2, seed=5)
    teacher = EmbeddedPatch(taught, 0.0, OFFSETS)
    loss = AffinityGraphLoss(OFFSETS, balanced=True)
    assert float(loss.compare(EmbeddedPatch(taught, 0.0, OFFSETS), teacher)) == pytest.approx(0, abs=1e-9)
    learnt = output(2, seed=6).requires_grad_()
    found = loss.compare(EmbeddedPatch(learnt, 0.0, OFFSETS), teacher)
    means = []
    for channel, offset in enumerate(OFFSETS):
        index = (slice(None), *HERE[offset])
        target = torch.sigmoid(taught[:, channel][index])
        weight = target / (2 * target.mean()) + (1 - target) / (2 * (1 - target.mean()))
        student = torch.sigmoid(learnt[:, channel][index])
        apart = target * (target / student).log() + (1 - target) * ((1 - target) / (1 - student)).log()
        means.append((weight * apart).mean())
    assert found.item() == pytest.approx(float(torch.stack(means).mean()), rel=1e-6)
    found.backward()
    assert learnt.grad is not None and learnt.grad.abs().min() < learnt.grad.abs().max()
    embedding = output(3, seed=7)
    cosines = loss.compare(EmbeddedPatch(learnt.detach(), 0.0, OFFSETS), EmbeddedPatch(embedding))
    assert 0 < float(cosines) < math.inf  # a teacher that embeds
    assert float(loss.compare(EmbeddedPatch(embedding), teacher)) > 0  # a student that embeds


def test_plain_affinities_come_before_cosines() -> None:
    given = output(5)
    affinities, valid = padded_affinities(EmbeddedPatch(given, 0.0, OFFSETS[:1]), OFFSETS)
    index = (slice(None), *HERE[OFFSETS[0]])
    torch.testing.assert_close(affinities[:, 0][index], torch.sigmoid(given[:, 4])[index])
    alone, _ = padded_affinities(EmbeddedPatch(given[:, :4]), OFFSETS)
    torch.testing.assert_close(affinities[:, 1], alone[:, 1])
    assert not affinities[:, 0, :, 0].any() and not valid[0, :, 0].any()  # no partner inside


def test_without_an_embedding_other_offsets_have_no_affinity() -> None:
    with pytest.raises(ValueError, match="no embedding to tell affinities at"):
        EmbeddedPatch(output(1), 0.0, OFFSETS[:1]).affinities(OFFSETS)
