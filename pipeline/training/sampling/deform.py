"""Elastic deformation and rotation in the section plane, as a gunpowder node.

gunpowder's own DeformAugment takes half a second for a patch of 9 × 128 × 128 voxels, more than a training step of a
light network; this one takes some hundredths.
"""

from __future__ import annotations

import math

import gunpowder as gp
import numpy as np
from funlib.geometry import Coordinate, Roi
from scipy import ndimage
from typing_extensions import override

from ...config import ElasticConfig
from ...volumes import Box
from .light_requests import Request


class Deform(gp.BatchFilter):
    """Deforms all arrays alike; asks for what they need upstream."""

    def __init__(self, config: ElasticConfig) -> None:
        self.config = config

    @override
    def skip_node(self, request: gp.BatchRequest) -> bool:
        self.rng = np.random.default_rng(request.random_seed)
        return bool(self.rng.random() >= self.config.probability)

    @override
    def prepare(self, request: gp.BatchRequest) -> gp.BatchRequest:
        total = request.get_total_roi()
        self.begin = Coordinate(total.begin)
        self.sources = source_positions(total.shape, self.config, self.rng)  # after the draw that let it act
        dependencies = Request()
        for key, spec in request.items():
            sources = self._sources_of(spec.roi)
            low = Coordinate(math.floor(axis.min()) for axis in sources)
            high = Coordinate(math.ceil(axis.max()) + 1 for axis in sources)
            dependencies[key] = spec.copy()
            dependencies[key].roi = Roi(low + self.begin, high - low)
        return dependencies

    def _sources_of(self, roi: Roi) -> np.ndarray:
        box = Box(roi.begin - self.begin, roi.end - self.begin)
        return self.sources[(slice(None), *box.slices)]

    @override
    def process(self, batch: gp.Batch, request: gp.BatchRequest) -> gp.Batch:
        deformed = gp.Batch()
        for key, array in batch.arrays.items():
            spec = array.spec.copy()
            first = np.array(spec.roi.begin - self.begin, dtype=np.float32)
            spec.roi = request[key].roi
            positions = self._sources_of(spec.roi) - first[:, None, None, None]
            deformed[key] = gp.Array(_look_up(array.data, positions, bool(spec.interpolatable)), spec)
        return deformed


def source_positions(shape: Coordinate, config: ElasticConfig, rng: np.random.Generator) -> np.ndarray:
    """Where each voxel of a deformed box comes from.

    Args:
        shape: (z, y, x) voxels.
        config: spacing and jitter of the control points, rotation.
        rng: source of randomness.

    Returns:
        (3, z, y, x) float32 positions in voxels, counted from the box's first voxel; they may lie outside.
    """
    z, y, x = np.meshgrid(*(np.arange(extent, dtype=np.float32) for extent in shape), indexing="ij", copy=False)
    if config.rotation:
        angle = rng.uniform(0, 2 * math.pi)
        middle_y, middle_x = (shape[1] - 1) / 2, (shape[2] - 1) / 2
        cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        from_y, from_x = y - np.float32(middle_y), x - np.float32(middle_x)
        y = cosine * from_y - sine * from_x + np.float32(middle_y)
        x = sine * from_y + cosine * from_x + np.float32(middle_x)
    positions = np.stack([np.broadcast_to(axis, shape) for axis in (z, y, x)]).astype(np.float32)
    for axis, deviation in enumerate(config.jitter):
        if deviation > 0:
            positions[axis] += deviation * _smooth_noise(shape, config.control_point_spacing, rng)
    return positions


def _smooth_noise(shape: Coordinate, spacing: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A cubic B-spline through standard normal control points, (z, y, x) float32."""
    bases = [_spline_basis(extent, step) for extent, step in zip(shape, spacing, strict=True)]
    noise = rng.standard_normal([basis.shape[1] for basis in bases]).astype(np.float32)
    for basis in bases:  # each contracts the first axis and appends it as the last
        noise = np.tensordot(noise, basis, axes=(0, 1))
    return noise


def _spline_basis(extent: int, spacing: int) -> np.ndarray:
    """Weights of the control points at each voxel of an axis, (voxels, control points) float32."""
    points = np.arange(-1, math.ceil(extent / spacing) + 2)
    distance = np.abs(np.arange(extent)[:, None] / spacing - points)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(0, 2 - distance) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def _look_up(data: np.ndarray, positions: np.ndarray, interpolate: bool) -> np.ndarray:
    """The values of an array at positions (3, …) that lie inside it."""
    if interpolate:
        interpolated: np.ndarray = ndimage.map_coordinates(data, positions, order=1, mode="nearest")
        return interpolated
    indices = (
        np.clip(np.rint(axis).astype(np.int64), 0, extent - 1)
        for axis, extent in zip(positions, data.shape, strict=True)
    )
    nearest: np.ndarray = data[tuple(indices)]
    return nearest
