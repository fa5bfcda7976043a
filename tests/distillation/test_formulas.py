"""Every term equals its formula, computed by loops, in 2D and in 3D."""

from __future__ import annotations

from typing import Any

import naive_losses as naive
import pytest
import torch
import torch.nn.functional as F

from pipeline.distillation import (
    AffinityGraphLoss,
    GraphRelationDistillation,
    InstanceGraphLoss,
    InterImageGraphLoss,
    MemoryBank,
    SupervisedAffinityLoss,
    cosine_to_affinity,
    embedding_affinities,
    instance_nodes,
)

SHAPES = {2: (9, 11), 3: (4, 8, 9)}
OFFSETS: dict[int, list[tuple[int, ...]]] = {
    2: [(-1, 0), (0, -1), (3, -2), (0, 20)],
    3: [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (-3, 0, 0), (2, -3, 1), (0, 0, 20)],
}
dimensional = pytest.mark.parametrize("dimensions", [2, 3])


def batch(dimensions: int, images: int = 3, channels: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings of student and teacher, and labels with other ids in each image."""
    shape = SHAPES[dimensions]
    labels = torch.randint(0, 5, (images, *shape)) * torch.arange(1, images + 1).view(-1, *[1] * dimensions)
    return torch.randn(images, channels, *shape), torch.randn(images, channels, *shape), labels


@dimensional
def test_instance_nodes_are_plain_means(dimensions: int) -> None:
    embedding, _, labels = batch(dimensions)
    for image, (ids, nodes) in enumerate(instance_nodes(embedding, labels)):
        expected = naive.nodes_of(embedding[image], labels[image])
        assert ids.tolist() == sorted(expected)
        for i, node in zip(ids.tolist(), nodes, strict=True):
            torch.testing.assert_close(node.double(), expected[i], atol=1e-5, rtol=1e-5)


@dimensional
def test_instance_graph(dimensions: int) -> None:
    student, teacher, labels = batch(dimensions)
    node, edge = naive.instance_terms(student, teacher, labels)
    assert float(InstanceGraphLoss(1, 0)(student, teacher, labels)) == pytest.approx(node, rel=1e-5)
    assert float(InstanceGraphLoss(0, 1)(student, teacher, labels)) == pytest.approx(edge, rel=1e-5)
    assert float(InstanceGraphLoss(0.5, 3)(student, teacher, labels)) == pytest.approx(0.5 * node + 3 * edge, rel=1e-5)


@dimensional
def test_affinity_graph(dimensions: int) -> None:
    student, teacher, _ = batch(dimensions, images=2)
    expected = naive.affinity_term(student, teacher, OFFSETS[dimensions])
    assert float(AffinityGraphLoss(OFFSETS[dimensions])(student, teacher)) == pytest.approx(expected, rel=1e-5)


@dimensional
def test_affinities_equal_torch_cosine(dimensions: int) -> None:
    embedding, _, _ = batch(dimensions)
    offsets = OFFSETS[dimensions]
    affinities, valid = embedding_affinities(embedding, offsets)
    assert affinities.shape == (3, len(offsets), *SHAPES[dimensions])
    assert valid.shape == affinities.shape[1:] and valid.dtype == torch.bool
    axes = tuple(range(2, 2 + dimensions))
    for channel, offset in enumerate(offsets):
        partner = embedding.roll([-step for step in offset], axes)
        expected = F.cosine_similarity(embedding, partner, dim=1)
        inside = valid[channel]
        torch.testing.assert_close(affinities[:, channel][:, inside], expected[:, inside], atol=1e-6, rtol=0)
        assert not affinities[:, channel][:, ~inside].any()
        overlap = torch.tensor([max(0, e - abs(o)) for e, o in zip(SHAPES[dimensions], offset, strict=True)])
        assert int(inside.sum()) == int(overlap.prod())


@dimensional
def test_inter_image_terms(dimensions: int) -> None:
    student, teacher, labels = batch(dimensions)
    labels[1] = 0
    past = [batch(dimensions) for _ in range(2)]
    past[0][2][2] = 0
    bank = MemoryBank(32)
    for _, remembered, remembered_labels in past:
        bank.enqueue(remembered, remembered_labels)
    images = [(t, l) for _, ts, ls in past for t, l in zip(ts, ls, strict=True)]  # noqa: E741
    edge, affinity = naive.inter_terms(student, teacher, labels, images)
    entries = bank.sample(32)
    assert len(entries) == 6
    assert float(InterImageGraphLoss(1, 0)(student, teacher, labels, entries)) == pytest.approx(edge, rel=1e-4)
    assert float(InterImageGraphLoss(0, 1)(student, teacher, labels, entries)) == pytest.approx(affinity, rel=1e-4)


@dimensional
def test_supervised_loss(dimensions: int) -> None:
    embedding, _, _ = batch(dimensions, images=2)
    offsets = OFFSETS[dimensions]
    affinities = (torch.rand(2, len(offsets), *SHAPES[dimensions]) < 0.8).to(torch.uint8)
    affinities[:, 1] = 1  # one class only
    mask = (torch.rand(affinities.shape) < 0.7).to(torch.uint8)
    mask[:, 2] = 0  # nothing known
    expected = naive.supervised_loss(embedding, affinities, mask, offsets)
    assert float(SupervisedAffinityLoss(offsets)(embedding, affinities, mask)) == pytest.approx(expected, rel=1e-5)


def test_supervised_loss_vanishes_at_its_goal() -> None:
    labels = torch.tensor([[1, 1, 2, 2, 3]])
    embedding = F.one_hot(labels, 4).movedim(-1, 1).float()[:, :, None]  # (1, 4, 1, 5)
    targets = (labels[:, 1:] == labels[:, :-1]).float()
    affinities = F.pad(targets, (1, 0))[:, None, None]
    loss = SupervisedAffinityLoss([(0, -1)])
    assert float(loss(embedding, affinities, torch.ones_like(affinities))) == pytest.approx(0, abs=1e-6)
    assert float(loss(embedding, 1 - affinities, torch.ones_like(affinities))) == pytest.approx(1, abs=1e-6)


def test_opposite_embeddings_have_affinity_zero() -> None:
    assert cosine_to_affinity(torch.tensor([-1.0, 0.0, 0.25, 1.0])).tolist() == [0, 0, 0.25, 1]


def test_terms_of_a_case_that_can_be_done_by_hand() -> None:
    """A row of two neurites of two voxels each; the teacher's second node is turned by 45 degrees towards the first."""
    labels = torch.tensor([[[1, 1, 2, 2]]])
    student = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])[None, :, None]
    teacher = torch.tensor([[2.0, 2.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])[None, :, None]
    module = GraphRelationDistillation([(0, -1)], inter_edge_weight=1, inter_affinity_weight=1, pool=(1, 2))
    along_the_first = torch.tensor([3.0, 0.0])
    module.memory.remember([along_the_first[None]], along_the_first.view(1, 2, 1, 1) / 3)
    _, terms = module(student, teacher, labels)
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(
        {
            "node": 1.0,  # both nodes are at distance 1
            "edge": 0.25,  # two of four ordered pairs: cosines 0 and sqrt(1/2)
            "affinity": 1 / 6,  # one of three pairs of voxels: cosines 0 and sqrt(1/2)
            "inter_edge": 0.25,  # one of two nodes: cosines 0 and sqrt(1/2)
            "inter_affinity": 0.25,  # one of two windows: products 0 and sqrt(1/2)
        }
    )


@dimensional
def test_total_is_the_weighted_sum_of_all_terms(dimensions: int) -> None:
    weights: dict[str, Any] = {"node": 0.1, "edge": 0.2, "affinity": 10.0, "inter_edge": 1.0, "inter_affinity": 4.0}
    distillation = GraphRelationDistillation(
        OFFSETS[dimensions], **{f"{name}_weight": weight for name, weight in weights.items()}
    )
    first, second = batch(dimensions, images=2), batch(dimensions, images=2)
    _, terms = distillation(*first)
    assert terms["inter_edge"] == terms["inter_affinity"] == 0  # nothing remembered yet
    total, terms = distillation(*second, weight_scale=0.5)
    student, teacher, labels = second
    node, edge = naive.instance_terms(student, teacher, labels)
    remembered = list(zip(first[1], first[2], strict=True))
    inter_edge, inter_affinity = naive.inter_terms(student, teacher, labels, remembered)
    affinity = naive.affinity_term(student, teacher, OFFSETS[dimensions])
    expected = dict(zip(weights, (node, edge, affinity, inter_edge, inter_affinity), strict=True))
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(expected, rel=1e-4)
    weighted = 0.5 * sum(weights[name] * value for name, value in expected.items())
    assert float(total) == pytest.approx(weighted, rel=1e-4)


@pytest.mark.parametrize("images", [1, 4])
def test_size_of_a_loss_does_not_depend_on_the_batch(images: int) -> None:
    student, teacher, labels = batch(3, images=1)
    distillation = GraphRelationDistillation(OFFSETS[3])
    single, _ = distillation(student, teacher, labels)
    many, _ = distillation(*(x.repeat(images, *[1] * (x.dim() - 1)) for x in (student, teacher, labels)))
    assert float(many) == pytest.approx(float(single), rel=1e-5)
