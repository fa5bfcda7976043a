"""Edges between touching instances, directions of nodes, and instances without slivers, against loops."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from naive_losses import cosine, nodes_of

from pipeline.config import DistillationConfig, TargetsConfig
from pipeline.distillation import GraphRelationDistillation
from pipeline.distillation.contacts import contacts, without_slivers
from pipeline.distillation.instances import find_instances
from pipeline.training.steps.training_setup import contact_distances

SHAPES = ((2, 9, 8), (2, 4, 7, 8))


def sample(shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings of student and teacher, and labels in patches, some of them 0; the second image is empty."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 6, (shape[0], *(-(-extent // 2) for extent in shape[1:])), generator=generator)
    labels = coarse
    for axis, extent in enumerate(shape[1:], start=1):
        labels = labels.repeat_interleave(2, axis).narrow(axis, 0, extent)
    labels = labels * 1000  # ids that are no indices
    labels[1] = 0
    student, teacher = (torch.randn((shape[0], 5, *shape[1:]), generator=generator) for _ in range(2))
    return student, teacher, labels


def naive_contacts(image: torch.Tensor, distances: Sequence[int]) -> dict[tuple[int, int], int]:
    """Ordered pairs of touching instances, and how much of them does."""
    found: dict[tuple[int, int], int] = defaultdict(int)
    for voxel in np.ndindex(*image.shape):
        for axis, distance in enumerate(distances):
            for step in (-distance, distance):
                there = tuple(v + step * (other == axis) for other, v in enumerate(voxel))
                if 0 <= there[axis] < image.shape[axis]:
                    pair = int(image[voxel]), int(image[there])
                    if 0 not in pair and pair[0] != pair[1]:
                        found[pair] += 1
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("distance", [1, 3, 20])
def test_contacts_count_pairs_of_voxels_across_a_cut(shape: tuple[int, ...], distance: int) -> None:
    labels = sample(shape)[2]
    distances = (distance,) * (len(shape) - 1)
    instances = find_instances(labels)
    table = contacts(instances, labels.shape[1:], distances)
    for image, ids, counts in zip(labels, instances.ids.tolist(), table, strict=True):
        expected = naive_contacts(image, distances)
        for i, one in enumerate(ids):
            for j, other in enumerate(ids):
                assert counts[i, j] == expected.get((one, other), 0)
    assert bool(table.any()) == (distance < 20)


@pytest.mark.parametrize("shape", SHAPES)
def test_touching_edges_are_weighted_by_their_contact(shape: tuple[int, ...]) -> None:
    student, teacher, labels = sample(shape)
    distances = (1, 3, 3)[-(len(shape) - 1) :]
    loss = GraphRelationDistillation(
        ((0,) * (len(shape) - 2) + (-1,),), node_weight=0, edge_weight=2, affinity_weight=0, touching=distances
    )
    student.requires_grad_()
    total, terms = loss(student, teacher, labels)
    of_student, of_teacher = nodes_of(student[0].detach(), labels[0]), nodes_of(teacher[0], labels[0])
    squares, weights = 0.0, 0
    for (i, j), contact in naive_contacts(labels[0], distances).items():
        difference = cosine(of_student[i], of_student[j]) - cosine(of_teacher[i], of_teacher[j])
        squares, weights = squares + contact * float(difference**2), weights + contact
    assert weights > 0
    assert terms["edge"].item() == pytest.approx(squares / weights, rel=1e-4)
    assert total.item() == pytest.approx(2 * squares / weights, rel=1e-4)
    total.backward()
    assert student.grad is not None and student.grad[0].abs().sum() > 0 and not student.grad[1].any()


def test_instances_that_touch_none_have_no_edges() -> None:
    student, teacher, labels = sample((2, 9, 8))
    apart = torch.zeros_like(labels)
    apart[0, :2], apart[0, 7:] = 1, 2
    loss = GraphRelationDistillation(((0, -1),), node_weight=0, edge_weight=1, affinity_weight=0, touching=(1, 1))
    total, _ = loss(student.requires_grad_(), teacher, apart)
    assert total == 0 and total.requires_grad


def test_directions_of_nodes_do_not_know_lengths() -> None:
    student, teacher, labels = sample((2, 4, 7, 8))
    loss = GraphRelationDistillation(((0, 0, -1),), node_weight=1, edge_weight=0, affinity_weight=0, unit_nodes=True)
    found = loss(student, teacher, labels)[0].item()
    of_student, of_teacher = nodes_of(student[0], labels[0]), nodes_of(teacher[0], labels[0])
    expected = [
        float((of_student[i] / of_student[i].norm() - of_teacher[i] / of_teacher[i].norm()).square().sum())
        for i in of_student
    ]
    assert found == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert loss(7 * student, 0.1 * teacher, labels)[0].item() == pytest.approx(found, rel=1e-4)


def naive_slivers(image: torch.Tensor, least: int) -> set[int]:
    axes = [axis for axis, extent in enumerate(image.shape) if extent > 2 * least]
    depths: dict[int, list[int]] = defaultdict(list)
    for voxel in np.ndindex(*image.shape):
        depths[int(image[voxel])].append(min(min(voxel[a], image.shape[a] - 1 - voxel[a]) for a in axes))
    return {label for label, deep in depths.items() if label > 0 and min(deep) == 0 and max(deep) < least}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("least", [1, 2, 3])
def test_slivers_are_what_the_border_cuts_to_less_than_the_least_depth(shape: tuple[int, ...], least: int) -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 60, shape, generator=generator) * 10**6
    labels[1, ..., :1] = 5  # the left border of the second image
    kept = without_slivers(labels, least)
    gone = 0
    for before, after in zip(labels, kept, strict=True):
        slivers = naive_slivers(before, least)
        gone += len(slivers)
        expected = torch.where(torch.isin(before, torch.tensor(sorted(slivers), dtype=torch.int64)), 0, before)
        assert torch.equal(after, expected)
    assert gone > 0 and kept.any()


def test_without_a_least_depth_or_with_too_large_a_one_every_instance_stays() -> None:
    labels = sample((2, 9, 8))[2]
    assert torch.equal(without_slivers(labels, 0), labels)
    assert torch.equal(without_slivers(labels, 5), labels)


def test_slivers_are_no_nodes() -> None:
    student, teacher, labels = sample((2, 9, 8))
    labels = torch.full_like(labels, 3)
    labels[:, :, 0] = 9
    settings = {"node_weight": 1.0, "edge_weight": 1.0, "affinity_weight": 0.0}
    without = GraphRelationDistillation(((0, -1),), **settings, least_depth=2)  # type: ignore[arg-type]
    published = GraphRelationDistillation(((0, -1),), **settings)  # type: ignore[arg-type]
    masked = labels.masked_fill(labels == 9, 0)
    assert without(student, teacher, labels)[0] == published(student, teacher, masked)[0]
    assert without(student, teacher, labels)[0] != published(student, teacher, labels)[0]


@pytest.mark.parametrize(
    ("targets", "asked", "expected"),
    [
        ({"erosion": 1}, None, (3, 3, 3)),
        ({"erosion": 2, "erosion_in_plane": True}, None, (1, 5, 5)),
        ({"erosion": 0}, None, (1, 1, 1)),
        ({"erosion": 1}, 6, (6, 6, 6)),
    ],
)
def test_instances_touch_across_the_cut_of_erosion(
    targets: dict[str, object], asked: int | None, expected: tuple[int, int, int]
) -> None:
    distillation = DistillationConfig(contact_distance=asked)
    assert contact_distances(distillation, TargetsConfig.model_validate(targets)) == expected
