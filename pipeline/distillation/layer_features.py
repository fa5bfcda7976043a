"""Inner layers of two networks, and the labels, brought onto each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LayerFeatures:
    """The features of a tapped layer, and where they lie.

    Attributes:
        features: (B, C, *size).
        downsampling: voxels per feature along each axis.
        begin: the first feature's low corner along each axis, in voxels counted from the first labelled voxel;
            negative where the layer reaches beyond the labels.
    """

    features: torch.Tensor
    downsampling: Sequence[int]
    begin: Sequence[int]


def align(
    student: LayerFeatures, teacher: LayerFeatures, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Crop two layers to the features whose middle voxel is labelled, and give each feature that voxel's label.

    Args:
        student, teacher: the same layer of both networks.
        labels: (B, *spatial).

    Returns:
        Features of the student (B, C, *common) and of the teacher (B, C', *common), and labels (B, *common).

    Raises:
        ValueError: the features of the two networks do not lie on each other, or none lies on a label.
    """
    of_student, of_teacher, of_labels = [], [], []
    for axis, step in enumerate(student.downsampling):
        shift = student.begin[axis] - teacher.begin[axis]
        if teacher.downsampling[axis] != step or shift % step != 0:
            raise ValueError("the features of student and teacher do not lie on each other in this layer")
        first = student.begin[axis] + step // 2  # middle voxel of the student's first feature
        low = max(0, -(shift // step), -(first // step))
        behind_labels = -((first - labels.shape[1 + axis]) // step)
        high = min(student.features.shape[2 + axis], teacher.features.shape[2 + axis] - shift // step, behind_labels)
        if high <= low:
            raise ValueError("no feature of this layer lies on a labelled voxel")
        of_student.append(slice(low, high))
        of_teacher.append(slice(low + shift // step, high + shift // step))
        of_labels.append(slice(first + low * step, first + (high - 1) * step + 1, step))
    everything = slice(None)
    return (
        student.features[(everything, everything, *of_student)],
        teacher.features[(everything, everything, *of_teacher)],
        labels[(everything, *of_labels)],
    )


def coarse_offsets(offsets: Sequence[Sequence[int]], downsampling: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Offsets in voxels as offsets in features: divided, rounded away from zero, each once."""
    coarse = [tuple(map(_divide_away_from_zero, offset, downsampling)) for offset in offsets]
    return tuple(dict.fromkeys(coarse))


def _divide_away_from_zero(step: int, factor: int) -> int:
    features = -(-abs(step) // factor)
    return features if step > 0 else -features
