"""What student and teacher make of the same voxels, as the terms of the loss need it."""

from __future__ import annotations

from functools import cached_property

import torch

from .instances import Instances, check_extents, find_instances, instance_means
from .maps import unit_map
from .precision import full_precision

OfBoth = tuple[torch.Tensor, torch.Tensor]
"""The student's and the teacher's."""


class Comparison:
    """One layer of both networks. Each part is computed when a term first asks for it, and once for all terms.

    Args:
        student: (B, D, *spatial).
        teacher: (B, D', *spatial); no gradient goes there.
        labels: (B, *spatial) int64; values above 0 are instances.
        least_lengths: of both embeddings, see `embedding_affinities`.

    Raises:
        ValueError: the extents differ.
    """

    def __init__(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        labels: torch.Tensor,
        least_lengths: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        check_extents(student, labels)
        check_extents(teacher, labels)
        self.student = full_precision(student).contiguous()  # channel after channel, as every part wants it
        self.teacher = full_precision(teacher.detach()).contiguous()
        self.labels = labels
        self.least_lengths = least_lengths

    @property
    def zero(self) -> torch.Tensor:
        """A zero that depends on the student, for losses without any term."""
        return self.student[:0].sum()

    @cached_property
    def instances(self) -> Instances:
        """The instances, common to both."""
        return find_instances(self.labels)

    @cached_property
    def nodes(self) -> OfBoth:
        """Mean embeddings of the instances, (B, I, D)."""
        return instance_means(self.student, self.instances), instance_means(self.teacher, self.instances)

    @cached_property
    def units(self) -> OfBoth:
        """Embeddings of unit length, or shorter where they are short, (B, D, *spatial)."""
        return unit_map(self.student, self.least_lengths[0]), unit_map(self.teacher, self.least_lengths[1])
