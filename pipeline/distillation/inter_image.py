"""Relations between images: the current image, seen by student and by teacher, against what the teacher remembers.

With e the student's minus the teacher's vectors of the current image and m those of a memory image, the mean of
(e_i . m_j)^2 over all i and j is the product of two small matrices, sum e e^T and sum m m^T: exact, and the
large table of all pairs is never made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from .instances import check_extents, find_instances, instance_means
from .memory import MemoryEntry, pooled_map
from .precision import no_autocast, unit_vectors


class InterImageGraphLoss(nn.Module):
    """The student is to relate the current image to past ones as the teacher does.

    Args:
        edge_weight: weight of the cosines between instances of the current image and of memory images.
        affinity_weight: weight of the products of pooled embeddings of the current image and of memory images.
        pool: extent of the pooling windows in voxels, as in the memory bank.
    """

    def __init__(self, edge_weight: float, affinity_weight: float, pool: Sequence[int] | None = None) -> None:
        super().__init__()
        self.edge_weight = edge_weight
        self.affinity_weight = affinity_weight
        self.pool = pool

    def forward(
        self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, entries: Sequence[MemoryEntry]
    ) -> torch.Tensor:
        """The weighted sum of both terms; zero while the memory is empty.

        Args:
            student: (B, D, *spatial).
            teacher: (B, D, *spatial); gets no gradient.
            labels: (B, *spatial) int64; values above 0 are instances.
            entries: sampled from the memory bank.

        Raises:
            ValueError: extents or channels differ.
        """
        check_extents(student, labels)
        check_extents(teacher, labels)
        total = student.float().sum() * 0
        if self.edge_weight:
            instances = find_instances(labels)
            learnt, taught = instance_means(student, instances), instance_means(teacher.detach(), instances)
            total = total + self.edge_weight * inter_edge_term(learnt, taught, instances.counts, entries)
        if self.affinity_weight:
            term = inter_affinity_term(student, teacher.detach(), entries, self.pool)
            total = total + self.affinity_weight * term
        return total


def inter_edge_term(
    student: torch.Tensor, teacher: torch.Tensor, counts: torch.Tensor, entries: Sequence[MemoryEntry]
) -> torch.Tensor:
    """Squared difference of cosines to the instances of memory images.

    Args:
        student, teacher: (B, I, D) nodes, zero in unused places.
        counts: (B,) used places.
        entries: memory images.

    Returns:
        The mean over all node pairs of two images, then over the pairs of images that both have instances.
    """
    _check_channels(student.shape[-1], teacher.shape[-1], [entry.nodes.shape[-1] for entry in entries])
    if not entries:
        return student.sum() * 0
    remembered = pad_sequence([entry.nodes.to(student) for entry in entries], batch_first=True)  # (M, J, D)
    remembered_counts = torch.tensor([len(entry.nodes) for entry in entries], device=student.device)
    with no_autocast(student):
        difference = unit_vectors(student, 2) - unit_vectors(teacher, 2)
        squares = _sum_of_squared_products(difference, unit_vectors(remembered, 2))
    pairs = counts[:, None] * remembered_counts  # (B, M)
    return (squares / pairs.clamp(min=1)).sum() / (pairs > 0).sum().clamp(min=1)


def inter_affinity_term(
    student: torch.Tensor,
    teacher: torch.Tensor,
    entries: Sequence[MemoryEntry],
    pool: Sequence[int] | None,
    least_lengths: tuple[float, float] = (0.0, 0.0),
) -> torch.Tensor:
    """Squared difference of products of pooled embeddings with those of memory images.

    Args:
        student, teacher: (B, D, *spatial) embeddings.
        entries: memory images.
        pool: extent of the pooling windows in voxels.
        least_lengths: of the student's and the teacher's embeddings, see `embedding_affinities`.

    Returns:
        The mean over all pairs of pooled positions of two images, then over all pairs of images.
    """
    _check_channels(student.shape[1], teacher.shape[1], [entry.pooled.shape[0] for entry in entries])
    if not entries:
        return student.float().sum() * 0
    learnt, taught = (pooled_map(e, pool, least) for e, least in zip((student, teacher), least_lengths, strict=True))
    difference = (learnt - taught).flatten(2).transpose(1, 2)  # (B, P, D)
    maps = [entry.pooled.to(difference).flatten(1).T for entry in entries]  # (Q, D) each
    positions = torch.tensor([len(coarse) for coarse in maps], device=student.device)
    with no_autocast(student):
        squares = _sum_of_squared_products(difference, pad_sequence(maps, batch_first=True))
    return (squares / (difference.shape[1] * positions)).mean()


def _sum_of_squared_products(current: torch.Tensor, remembered: torch.Tensor) -> torch.Tensor:
    """Sum over i and j of the squared product of vectors i (B, I, D) and j (M, J, D): (B, M)."""
    return torch.einsum("bde,mde->bm", current.transpose(1, 2) @ current, remembered.transpose(1, 2) @ remembered)


def _check_channels(student: int, teacher: int, remembered: Sequence[int]) -> None:
    if {student, teacher, *remembered} != {student}:
        raise ValueError(
            f"inter-image terms need equal embedding channels, got {student} (student), {teacher} (teacher) and "
            f"{sorted(set(remembered))} (memory)"
        )
