"""The formulas of docs/METHODS.md written as loops over voxels, instances and images, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

Nodes = dict[int, torch.Tensor]


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = (a * b).sum() / (a.norm() * b.norm())
    return result


def nodes_of(embedding: torch.Tensor, labels: torch.Tensor) -> Nodes:
    """Of one image: embedding (D, *spatial), labels (*spatial)."""
    return {int(i): embedding[:, labels == i].double().mean(1) for i in labels.unique() if i > 0}


def instance_terms(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """IGD nodes and edges of a batch."""
    node, edge = [], []
    for s, t, image in zip(student, teacher, labels, strict=True):
        of_student, of_teacher = nodes_of(s, image), nodes_of(t, image)
        if not of_student:
            continue
        pairs = list(product(of_student, repeat=2))
        if s.shape == t.shape:
            node.append(
                sum(float((of_student[i] - of_teacher[i]).square().sum()) for i in of_student) / len(of_student)
            )
        differences = [cosine(of_student[i], of_student[j]) - cosine(of_teacher[i], of_teacher[j]) for i, j in pairs]
        edge.append(sum(float(d**2) for d in differences) / len(pairs))
    return sum(node) / max(1, len(node)), sum(edge) / max(1, len(edge))


def affinity_pairs(embedding: torch.Tensor, offset: Sequence[int]) -> dict[tuple[int, ...], torch.Tensor]:
    """Of one image: the cosine of every voxel whose partner lies inside."""
    shape = embedding.shape[1:]
    pairs = {}
    for voxel in np.ndindex(*shape):
        partner = tuple(v + o for v, o in zip(voxel, offset, strict=True))
        if all(0 <= p < extent for p, extent in zip(partner, shape, strict=True)):
            pairs[voxel] = cosine(
                embedding[(slice(None), *voxel)].double(), embedding[(slice(None), *partner)].double()
            )
    return pairs


def affinity_term(student: torch.Tensor, teacher: torch.Tensor, offsets: Sequence[Sequence[int]]) -> float:
    """AGD of a batch."""
    squares = []
    for offset, (s, t) in product(offsets, list(zip(student, teacher, strict=True))):
        of_student, of_teacher = affinity_pairs(s, offset), affinity_pairs(t, offset)
        squares += [float((of_student[voxel] - of_teacher[voxel]) ** 2) for voxel in of_student]
    return sum(squares) / len(squares)


def pooled(embedding: torch.Tensor) -> torch.Tensor:
    """Of one image: (D, positions)."""
    unit = (embedding / embedding.norm(dim=0, keepdim=True)).double()
    if embedding.dim() == 3:
        return F.avg_pool2d(unit[None], (7, 7), ceil_mode=True)[0].flatten(1)
    return F.avg_pool3d(unit[None], (3, 7, 7), ceil_mode=True)[0].flatten(1)


def inter_terms(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    remembered: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[float, float]:
    """Inter-image edges and affinity of a batch against (teacher embedding, labels) of memory images."""
    edge, affinity = [], []
    for (s, t, image), (memory, memory_labels) in product(list(zip(student, teacher, labels, strict=True)), remembered):
        of_student, of_teacher, there = nodes_of(s, image), nodes_of(t, image), nodes_of(memory, memory_labels)
        if of_student and there:
            squares = [
                float((cosine(of_student[i], there[j]) - cosine(of_teacher[i], there[j])) ** 2)
                for i, j in product(of_student, there)
            ]
            edge.append(sum(squares) / len(squares))
        difference = pooled(s).T @ pooled(memory) - pooled(t).T @ pooled(memory)
        affinity.append(float(difference.square().mean()))
    return sum(edge) / max(1, len(edge)), sum(affinity) / max(1, len(affinity))


def supervised_loss(
    embedding: torch.Tensor, affinities: torch.Tensor, mask: torch.Tensor, offsets: Sequence[Sequence[int]]
) -> float:
    """Class-balanced supervised loss of a batch."""
    channels = []
    for channel, offset in enumerate(offsets):
        values, targets = [], []
        for image in range(len(embedding)):
            for voxel, value in affinity_pairs(embedding[image], offset).items():
                if mask[(image, channel, *voxel)]:
                    values.append(float(value))
                    targets.append(bool(affinities[(image, channel, *voxel)]))
        if not values:
            continue
        share = min(0.98, max(0.02, sum(targets) / len(targets)))
        weights = [1 / (2 * share) if target else 1 / (2 * (1 - share)) for target in targets]
        misses = [(1 - v) ** 2 if target else max(0.0, v) ** 2 for v, target in zip(values, targets, strict=True)]
        channels.append(sum(w * m for w, m in zip(weights, misses, strict=True)) / sum(weights))
    return sum(channels) / max(1, len(channels))
