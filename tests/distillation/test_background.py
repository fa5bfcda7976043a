"""Objects on a background: short embeddings have an affinity to none, and pairs of background voxels may count less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.distillation import (
    AffinityGraphLoss,
    GraphRelationDistillation,
    SupervisedAffinityLoss,
    embedding_affinities,
)
from pipeline.distillation.maps import unit_map
from pipeline.distillation.memory import pooled_map

OFFSETS = ((0, -1), (-3, 0))


def example() -> tuple[torch.Tensor, ...]:
    """Embedding, targets, mask and labels of two images with two touching objects each on a background."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros((2, 12, 14), dtype=torch.int64)
    labels[:, 2:8, 3:6], labels[:, 2:8, 6:9] = 1, 2
    embedding = torch.randn((2, 5, 12, 14), generator=generator)
    affinities, mask = torch.zeros((2, 2, 2, 12, 14))
    for k, (y, x) in enumerate(OFFSETS):
        here = (slice(None), slice(-y, None), slice(-x, None))
        there = (slice(None), slice(0, 12 + y), slice(0, 14 + x))
        affinities[:, k][here] = ((labels[here] == labels[there]) & (labels[here] > 0)).float()
        mask[:, k][here] = (torch.rand(labels[here].shape, generator=generator) < 0.9).float()
    return embedding, affinities, mask, labels


def test_pairs_of_background_weigh_as_pairs_within_objects_and_the_others_are_balanced() -> None:
    embedding, affinities, mask, labels = example()
    per_offset = []
    for k, (dy, dx) in enumerate(OFFSETS):
        misses: dict[str, list[float]] = {"together": [], "apart": [], "background": []}
        for image, y, x in np.ndindex(2, 12, 14):
            if y + dy < 0 or x + dx < 0 or not mask[image, k, y, x]:
                continue
            pair = embedding[image, :, y, x], embedding[image, :, y + dy, x + dx]
            cosine = float(torch.cosine_similarity(*pair, dim=0))
            ids = int(labels[image, y, x]), int(labels[image, y + dy, x + dx])
            kind = "background" if ids == (0, 0) else "together" if ids[0] == ids[1] else "apart"
            misses[kind].append((1 - cosine) ** 2 if kind == "together" else max(cosine, 0) ** 2)
        within = 0.5 / len(misses["together"])
        across = 0.5 / len(misses["apart"])
        total = within * sum(misses["together"]) + across * sum(misses["apart"])
        per_offset.append(total + 0.3 * within * sum(misses["background"]))
    found = SupervisedAffinityLoss(OFFSETS, background_weight=0.3)(embedding, affinities, mask, labels)
    assert found == pytest.approx(np.mean(per_offset), rel=1e-5)


def test_a_batch_with_hardly_any_object_has_no_loss_beyond_measure() -> None:
    """Two voxels in a wide image that is background: with the weight of that pair alone as divisor, thousands."""
    labels = torch.zeros((1, 64, 64), dtype=torch.int64)
    labels[0, 3, 3:5] = 1
    affinities = torch.zeros((1, 1, 64, 64))
    affinities[0, 0, 3, 4] = 1
    loss = SupervisedAffinityLoss(((0, -1),), background_weight=1.0)
    pairs = (torch.ones((1, 3, 64, 64)), affinities, torch.ones_like(affinities))
    assert 10 < loss(*pairs, labels) <= 20
    assert 10 < loss(pairs[0], affinities * 0, pairs[2], labels * 0) <= 20  # none at all


def test_the_extent_of_the_background_does_not_drown_a_boundary_missed() -> None:
    """Both objects look alike, the background is learnt: the loss is that of the boundary, however wide the image."""
    losses = {}
    for width in (14, 42):
        labels = torch.zeros((1, 12, width), dtype=torch.int64)
        labels[:, 2:8, 3:6], labels[:, 2:8, 6:9] = 1, 2
        joined = torch.stack([(labels > 0).float(), labels.float() * 0], dim=1)
        here, there = labels[..., 1:], labels[..., :-1]
        affinities = torch.zeros((1, 1, 12, width))
        affinities[:, 0, :, 1:] = ((here == there) & (here > 0)).float()
        pairs = (joined, affinities, torch.ones_like(affinities))
        losses[width] = [
            float(SupervisedAffinityLoss(((0, -1),))(*pairs)),
            float(SupervisedAffinityLoss(((0, -1),), background_weight=1.0)(*pairs, labels)),
        ]
    assert losses[42][0] < losses[14][0] / 2
    assert losses[42][1] == pytest.approx(losses[14][1])


def shortened(embedding: torch.Tensor) -> torch.Tensor:
    """Vectors divided by their length, or by 1 if they are shorter."""
    result: torch.Tensor = embedding / embedding.norm(dim=1, keepdim=True).clamp(min=1)
    return result


def test_a_short_embedding_has_a_small_affinity_to_any_voxel() -> None:
    embedding = torch.randn((1, 3, 6, 7), generator=torch.Generator().manual_seed(0))
    embedding = embedding * torch.linspace(0, 2, 7)
    affinities, valid = embedding_affinities(embedding, ((0, -1), (-2, 0)), least_length=1.0)
    vectors = shortened(embedding)
    expected = (vectors[..., 1:] * vectors[..., :-1]).sum(1)
    torch.testing.assert_close(affinities[:, 0, :, 1:], expected)
    assert not affinities[:, :, ~valid.all(0)].isnan().any()
    assert affinities[0, 0, :, 1].abs().max() < 1e-6  # its partner is a zero vector
    cosines, _ = embedding_affinities(embedding * 100, ((0, -1),))
    long, _ = embedding_affinities(embedding * 100, ((0, -1),), least_length=1.0)
    torch.testing.assert_close(long[..., 2:], cosines[..., 2:])


def test_embeddings_of_background_shrink_and_those_of_objects_grow() -> None:
    """One step from vectors that all look alike; with directions alone their lengths would not matter."""
    embedding, affinities, mask, labels = example()
    alike = torch.full_like(embedding, 0.2).requires_grad_()
    SupervisedAffinityLoss(OFFSETS, least_length=1.0)(alike, affinities, mask).backward()
    assert alike.grad is not None
    stretched = -(alike.grad * alike.detach()).sum(1)
    assert stretched[labels == 0].max() <= 0
    assert stretched[labels == 0].mean() < 0
    assert stretched[:, 3:7, 4].min() > 0  # inside an object
    alike = alike.detach().requires_grad_()
    SupervisedAffinityLoss(OFFSETS)(alike, affinities, mask).backward()
    assert alike.grad is not None
    assert (alike.grad * alike.detach()).sum(1).abs().max() < 1e-7


def test_student_and_teacher_each_have_a_length_of_their_own() -> None:
    student, _, _, labels = example()
    student = student / 3
    found = AffinityGraphLoss(OFFSETS, least_lengths=(1.0, 0.0))(student, student * 5)
    assert found == pytest.approx(float(AffinityGraphLoss(OFFSETS)(shortened_twin(student), student)), rel=1e-5)
    weights: dict[str, Any] = {"node_weight": 0.0, "edge_weight": 0.0, "inter_affinity_weight": 1.0}
    distillation = GraphRelationDistillation(OFFSETS, **weights, least_lengths=(1.0, 1.0))
    distillation(student, student, labels)
    remembered = distillation.memory.sample(2, torch.Generator().manual_seed(0))
    pooled = pooled_map(unit_map(student, 1.0))
    assert any(torch.equal(entry.pooled, pooled[0]) for entry in remembered)
    assert distillation(student, student, labels)[1]["inter_affinity"] == 0


def shortened_twin(embedding: torch.Tensor) -> torch.Tensor:
    """An embedding whose cosines are the affinities of short vectors: a private axis takes up the missing length."""
    short = shortened(embedding)
    batch, _, *spatial = short.shape
    voxels = short[0, 0].numel()
    missing = (1 - short.square().sum(1)).clamp(min=0).sqrt().flatten(1)
    private = torch.diag_embed(missing).reshape(batch, voxels, voxels)
    return torch.cat([short.flatten(2), private], dim=1).reshape(batch, -1, *spatial)
