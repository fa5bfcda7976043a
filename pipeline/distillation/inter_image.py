"""Relations between images: the current image, seen by student and by teacher, against what the teacher remembers.

With e the student's minus the teacher's vectors of the current image and m those of a memory image, the mean of
(e_i . m_j)^2 over all i and j is the inner product of two small matrices, the means of e e^T and of m m^T: exact, and
the large table of all pairs is never made. The mean over pairs of images, too, is the inner product of the means of
these matrices over the current and over the memory images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .comparison import Comparison
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
        both = Comparison(student, teacher, labels)
        weighted = []
        if self.edge_weight:
            weighted.append(self.edge_weight * inter_edge_term(*both.nodes, both.instances.counts, entries))
        if self.affinity_weight:
            learnt, taught = (pooled_map(one.unit, self.pool) for one in (both.student, both.teacher))
            weighted.append(self.affinity_weight * inter_affinity_term(learnt, taught, entries))
        return torch.stack(weighted).sum() if weighted else both.zero


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
    _check_channels(student.shape[2], teacher.shape[2], [entry.nodes.shape[1] for entry in entries])
    if not entries:
        return student.sum() * 0
    remembered = torch.cat([entry.nodes.to(student) for entry in entries])  # (instances of all images, D)
    counts_there = torch.tensor([len(entry.nodes) for entry in entries], device=student.device)
    with no_autocast(student):
        difference, unit = unit_vectors(student, 2) - unit_vectors(teacher, 2), unit_vectors(remembered, 1)
        share = _shares(counts_there, unit).repeat_interleave(counts_there, output_size=len(unit))
        there = unit.T @ (unit * share[:, None])
        here = difference.transpose(1, 2) @ (difference * _shares(counts, difference)[:, None, None])
    return (here.sum(0) * there).sum()


def inter_affinity_term(student: torch.Tensor, teacher: torch.Tensor, entries: Sequence[MemoryEntry]) -> torch.Tensor:
    """Squared difference of products of pooled embeddings with those of memory images.

    Args:
        student, teacher: (B, D, *coarse) pooled maps.
        entries: memory images.

    Returns:
        The mean over all pairs of pooled positions of two images, then over all pairs of images.
    """
    _check_channels(student.shape[1], teacher.shape[1], [entry.pooled.shape[0] for entry in entries])
    difference = student - teacher
    if not entries:
        return difference.sum() * 0
    by_shape: dict[torch.Size, list[torch.Tensor]] = {}
    for entry in entries:
        by_shape.setdefault(entry.pooled.shape, []).append(entry.pooled.to(difference))
    there = torch.cat([_mean_squares(torch.stack(maps)) for maps in by_shape.values()])
    return (_mean_squares(difference).mean(0) * there.mean(0)).sum()


def _mean_squares(maps: torch.Tensor) -> torch.Tensor:
    """Mean of v v^T over the positions of maps (images, D, *coarse): (images, D, D)."""
    vectors = maps.flatten(2)
    with no_autocast(maps):
        return vectors @ vectors.transpose(1, 2) / vectors.shape[2]


def _shares(counts: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """How much an instance counts in the mean over its image's, then over the images that have some: (images,)."""
    images = (counts > 0).sum().clamp(min=1)
    return (counts.clamp(min=1) * images).to(like).reciprocal()


def _check_channels(student: int, teacher: int, remembered: Sequence[int]) -> None:
    if {student, teacher, *remembered} != {student}:
        raise ValueError(
            f"inter-image terms need equal embedding channels, got {student} (student), {teacher} (teacher) and "
            f"{sorted(set(remembered))} (memory)"
        )
