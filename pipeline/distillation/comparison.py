"""What student and teacher make of the same voxels, as the terms of the loss need it."""

from __future__ import annotations

from functools import cached_property

import torch

from .instances import Instances, check_extents, find_instances, instance_means
from .patch import EmbeddedPatch


class Comparison:
    """One layer of both networks. Each part is computed when a term first asks for it, and once for all terms.

    Args:
        student: (B, D, *spatial), or a patch that other losses look at, too.
        teacher: (B, D', *spatial), or a patch without gradient; no gradient goes there.
        labels: (B, *spatial) int64; values above 0 are instances.
        least_lengths: of both embeddings, see `embedding_affinities`.

    Raises:
        ValueError: the extents differ.
    """

    def __init__(
        self,
        student: torch.Tensor | EmbeddedPatch,
        teacher: torch.Tensor | EmbeddedPatch,
        labels: torch.Tensor,
        least_lengths: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        check_extents(student.shape, labels)
        check_extents(teacher.shape, labels)
        self.student = EmbeddedPatch.of(student, least_lengths[0])
        self.teacher = EmbeddedPatch.of(
            teacher.detach() if isinstance(teacher, torch.Tensor) else teacher, least_lengths[1]
        )
        self.labels = labels

    @property
    def zero(self) -> torch.Tensor:
        """A zero that depends on the student, for losses without any term."""
        return self.student.embedding[:0].sum()

    @cached_property
    def instances(self) -> Instances:
        """The instances of the labels, the same for student and teacher."""
        return find_instances(self.labels)

    @cached_property
    def nodes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The student's and the teacher's mean embeddings of the instances, (B, I, D)."""
        student, teacher = (instance_means(one.embedding, self.instances) for one in (self.student, self.teacher))
        return student, teacher
