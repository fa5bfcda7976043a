"""The instance graph: one node per neurite in the patch, the mean of its voxels' embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .precision import full_precision, no_autocast, unit_vectors


@dataclass(frozen=True)
class Instances:
    """The instances of a batch, as many places per image as the richest image has instances.

    Attributes:
        ids: (B, I) int64 labels, ascending; 0 in unused places.
        present: (B, I) bool, False in unused places, which come last.
        sizes: (B, I) int64 voxels.
        places: (B, voxels) int64, the place of each voxel among the instances of its image; I for voxels of none.
    """

    ids: torch.Tensor
    present: torch.Tensor
    sizes: torch.Tensor
    places: torch.Tensor

    @property
    def counts(self) -> torch.Tensor:
        """(B,) instances per image."""
        return self.present.sum(1)


def find_instances(labels: torch.Tensor) -> Instances:
    """The instances of a batch of labels (B, *spatial) int64: all values above 0."""
    batch = labels.shape[0]
    values, index = _distinct(labels.reshape(batch, -1).long())
    index += torch.arange(batch, device=labels.device)[:, None] * len(values)
    sizes = torch.bincount(index.flatten(), minlength=batch * len(values)).view(batch, len(values))
    exists = (sizes > 0) & (values > 0)
    width = int(exists.sum(1).max()) if exists.numel() else 0
    place = torch.where(exists, exists.cumsum(1) - 1, width)  # the last place collects the background
    ids, counted = (
        torch.zeros(batch, width + 1, dtype=torch.int64, device=labels.device).scatter_(1, place, per_value)[:, :width]
        for per_value in (values.expand(batch, -1), sizes)
    )
    return Instances(ids, counted > 0, counted, place.flatten()[index])


def _distinct(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values in ascending order, among them all positive labels, and for each voxel the index of its label.

    Small labels are their own index; only others are worth sorting.
    """
    largest = int(labels.max()) if labels.numel() else 0
    if largest < labels.shape[1]:
        return torch.arange(max(0, largest) + 1, device=labels.device), labels.clamp(min=0)
    result: tuple[torch.Tensor, torch.Tensor] = torch.unique(labels, return_inverse=True)
    return result


def instance_means(embedding: torch.Tensor, instances: Instances) -> torch.Tensor:
    """Mean embedding of each instance, zero in unused places: (B, D, *spatial) to (B, I, D) in full precision."""
    voxels = full_precision(embedding).flatten(2)  # (B, D, voxels)
    sums = voxels.new_zeros(*voxels.shape[:2], instances.present.shape[1] + 1)
    sums = sums.scatter_add(2, instances.places[:, None].expand_as(voxels), voxels)
    return sums[..., :-1].transpose(1, 2) / instances.sizes.clamp(min=1)[..., None]


def nodes_of_images(means: torch.Tensor, instances: Instances) -> list[torch.Tensor]:
    """Means (B, I, D) as nodes of each image, without the unused places."""
    return [nodes[:count] for nodes, count in zip(means, instances.counts.tolist(), strict=True)]


def instance_nodes(embedding: torch.Tensor, labels: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The nodes of each image.

    Args:
        embedding: (B, D, *spatial).
        labels: (B, *spatial) int64; values above 0 are instances.

    Returns:
        For each image the ids (I,) int64, ascending, and the mean embeddings (I, D), not normalised.

    Raises:
        ValueError: embedding and labels have different extents.
    """
    check_extents(embedding.shape, labels)
    instances = find_instances(labels)
    nodes = nodes_of_images(instance_means(embedding, instances), instances)
    return [(ids[: len(means)], means) for ids, means in zip(instances.ids, nodes, strict=True)]


class InstanceGraphLoss(nn.Module):
    """The student's instance graph is to look like the teacher's: same nodes, same cosines between all nodes.

    Args:
        node_weight: weight of the squared distance of nodes, mean over instances.
        edge_weight: weight of the squared difference of edges, mean over ordered pairs, each node with itself too.
    """

    def __init__(self, node_weight: float, edge_weight: float) -> None:
        super().__init__()
        self.node_weight = node_weight
        self.edge_weight = edge_weight

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The weighted sum of both terms, mean over the images that have instances.

        Args:
            student: (B, D, *spatial).
            teacher: (B, D, *spatial); gets no gradient.
            labels: (B, *spatial) int64; values above 0 are instances.

        Raises:
            ValueError: extents or channels differ.
        """
        check_extents(student.shape, labels)
        check_extents(teacher.shape, labels)
        instances = find_instances(labels)
        learnt, taught = instance_means(student, instances), instance_means(teacher.detach(), instances)
        total = learnt.sum() * 0
        if self.node_weight:
            total = total + self.node_weight * node_term(learnt, taught, instances.present)
        if self.edge_weight:
            total = total + self.edge_weight * edge_term(learnt, taught, instances.present)
        return total


def node_term(student: torch.Tensor, teacher: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Squared distance of nodes (B, I, D), mean over instances, then over images that have some.

    Raises:
        ValueError: the channels differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"nodes of {student.shape[-1]} and {teacher.shape[-1]} channels have no distance; project the student's"
        )
    distances = (student - teacher).square().sum(2)
    counts = present.sum(1)
    return _mean_over_images(distances.sum(1) / counts.clamp(min=1), counts)


def edge_term(student: torch.Tensor, teacher: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Squared difference of cosines between all nodes (B, I, D), mean over ordered pairs, then over images that have
    instances; the channels may differ.
    """
    difference = _difference_of_cosines(student, teacher)  # zero in unused places
    counts = present.sum(1)
    return _mean_over_images(difference.square().sum((1, 2)) / counts.square().clamp(min=1), counts)


def touching_edge_term(student: torch.Tensor, teacher: torch.Tensor, contacts: torch.Tensor) -> torch.Tensor:
    """Squared difference of cosines between nodes (B, I, D) that touch, mean over pairs, each weighted by its contact
    (B, I, I), then over images in which any touch; the channels may differ.
    """
    squares = _difference_of_cosines(student, teacher).square()
    totals = contacts.sum((1, 2))
    return _mean_over_images((contacts * squares).sum((1, 2)) / totals.clamp(min=1), totals)


def _difference_of_cosines(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """(B, I, I), between all nodes (B, I, D) of an image."""
    with no_autocast(student):
        return _cosines(student) - _cosines(teacher)


def check_extents(embedding: torch.Size, labels: torch.Tensor) -> None:
    """Raise a ValueError if an embedding's shape (B, D, *spatial) does not fit labels (B, *spatial)."""
    if embedding[:1] + embedding[2:] != labels.shape:
        raise ValueError(f"labels {tuple(labels.shape)} do not fit an embedding of shape {tuple(embedding)}")


def _cosines(nodes: torch.Tensor) -> torch.Tensor:
    unit = unit_vectors(nodes, 2)
    return unit @ unit.transpose(1, 2)


def _mean_over_images(per_image: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    return per_image.sum() / (counts > 0).sum().clamp(min=1)
