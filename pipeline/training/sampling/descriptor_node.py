"""Local shape descriptors as a gunpowder node: labels of a larger box come in, so that the descriptors of a sample are
those of the whole volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import gunpowder as gp
import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ...volumes import Box
from .light_requests import Request, Spec
from .nodes import LABELS, VOXEL

DESCRIPTORS: gp.ArrayKey = gp.ArrayKey("DESCRIPTORS")


@dataclass(frozen=True)
class Described:
    """Which descriptors.

    Attributes:
        sigma: of the Gaussian along z, y, x, in voxels.
        in_plane: sections are images of their own.
    """

    sigma: tuple[float, float, float]
    in_plane: bool

    @property
    def reach(self) -> Coordinate:
        """Voxels on each side that a descriptor depends on."""
        from ...segmentation import descriptor_reach  # here and below: not needed by loaders of other trainings

        return Coordinate(descriptor_reach(self.sigma, self.in_plane))


class MakeDescriptors(gp.BatchFilter):
    """Descriptors of the objects as they are labelled, before erosion cuts them apart."""

    def __init__(self, described: Described) -> None:
        self.described = described
        self.reach = described.reach

    @override
    def setup(self) -> None:
        self.updates(LABELS, self.spec[LABELS].copy())
        self.provides(DESCRIPTORS, Spec(self.spec[LABELS].roi, VOXEL, interpolatable=False, dtype=np.float32))

    @override
    def prepare(self, request: gp.BatchRequest) -> gp.BatchRequest:
        dependencies = Request()
        dependencies[LABELS] = request[LABELS].copy()
        dependencies[LABELS].roi = request[LABELS].roi.union(request[DESCRIPTORS].roi.grow(self.reach, self.reach))
        return dependencies

    @override
    def process(self, batch: gp.Batch, request: gp.BatchRequest) -> gp.Batch:
        from ...segmentation import local_shape_descriptors

        labels, roi = batch[LABELS], request[DESCRIPTORS].roi
        window = Box(roi.begin, roi.end).relative_to(Box(labels.spec.roi.begin, labels.spec.roi.end)).slices
        spec = self.spec[DESCRIPTORS].copy()
        spec.roi = roi
        described = local_shape_descriptors(labels.data, self.described.sigma, window, in_plane=self.described.in_plane)
        made = gp.Batch()
        made[DESCRIPTORS] = gp.Array(described, spec)
        made[LABELS] = labels.crop(request[LABELS].roi)
        return made
