"""Instances where nobody labelled any: parts of the patch that the teacher holds together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...config import Config, Offset
from ...distillation import EmbeddedPatch, cosine_to_affinity, padded_affinities
from ...offsets import pair_slices
from .validation import merged_fragments, validation_offsets

LEAST_VOXELS = 50
"""Smaller parts are crumbs of boundaries, not instances."""


@dataclass(frozen=True)
class TeacherInstances:
    """The teacher's own segmentation of the last samples of every batch.

    Attributes:
        config: the run's, for offsets and fragments.
        count: unlabelled samples, the last of a batch.
        voxel_size: in nanometres.
    """

    config: Config
    count: int
    voxel_size: Sequence[float]

    @torch.no_grad()
    def __call__(self, taught: EmbeddedPatch, labels: torch.Tensor) -> torch.Tensor:
        """Labels (b, z, y, x) int64 with those of the unlabelled samples filled in; the argument stays as it is.

        Args:
            taught: (b, d, z, y, x) as the teacher has it.
            labels: (b, z, y, x) int64 of the same voxels.
        """
        assert self.config.student.distillation is not None
        settings = self.config.student.distillation.unlabelled
        segment = self._watershed if settings.instances == "watershed" else self._components
        offsets = self.config.neighbours if settings.instances == "components" else validation_offsets(self.config)
        told, _ = padded_affinities(taught.changed(lambda voxels: voxels[-self.count :]), offsets)
        affinities = cosine_to_affinity(told).cpu().numpy()
        found = np.stack([_numbered(segment(sample, offsets, settings.instance_threshold)) for sample in affinities])
        return torch.cat([labels[: -self.count], torch.from_numpy(found).to(labels)])

    def _watershed(self, affinities: np.ndarray, offsets: Sequence[Offset], threshold: float) -> np.ndarray:
        from ...segmentation import make_fragments  # not needed by the loader's workers

        settings = self.config.fragments.method_settings()
        fragments = make_fragments(affinities, offsets, voxel_size=self.voxel_size, **settings)
        return merged_fragments(affinities, fragments, self.config.neighbours, [threshold])[threshold]

    def _components(self, affinities: np.ndarray, offsets: Sequence[Offset], threshold: float) -> np.ndarray:
        from ...segmentation import connected_components

        voxels = np.arange(1, affinities[0].size + 1, dtype=np.uint64).reshape(affinities.shape[1:])
        edges, scores = [], []
        for channel, offset in enumerate(offsets):
            here, there = pair_slices(offset, voxels.shape)
            edges.append(np.stack([voxels[here].ravel(), voxels[there].ravel()], axis=1))
            scores.append(1 - affinities[channel][here].ravel())
        lut = connected_components(voxels.ravel(), np.concatenate(edges), np.concatenate(scores), threshold)
        return lut[:, 1].reshape(voxels.shape)


def _numbered(segmentation: np.ndarray) -> np.ndarray:
    """Segments (z, y, x) as small int64 numbers, those with few voxels as 0."""
    ids, index, sizes = np.unique(segmentation, return_inverse=True, return_counts=True)
    kept = (ids != 0) & (sizes >= LEAST_VOXELS)
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int64)
    return numbers[index].reshape(segmentation.shape)
