"""From labels to what the networks are asked to predict: pure functions on arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..label_ids import has_id
from ..offsets import pair_slices


def erode_boundaries(
    labels: np.ndarray, erosion: int, *, in_plane: bool = False, unlabelled_id: int | None = None
) -> np.ndarray:
    """Cut touching neurites apart: voxels within `erosion` steps of another neurite become background.

    Neurites that background already separates stay as they are, and so do neurites beside unannotated voxels.

    Args:
        labels: (z, y, x), any integer type; 0 is background.
        erosion: width of the cut to each side in voxels, counted in steps along the axes; 0 changes nothing.
        in_plane: cut only within sections.
        unlabelled_id: the value of voxels that are not annotated.

    Returns:
        A new array of the same shape and type.
    """
    eroded = labels.copy()
    if erosion == 0:
        return eroded
    neurite = labels != 0
    if unlabelled_id is not None:
        neurite &= ~has_id(labels, unlabelled_id)
    axes = range(1 if in_plane else 0, labels.ndim)
    cut = _contact_voxels(labels, neurite, axes)
    for _ in range(erosion - 1):
        cut = _one_step_wider(cut, axes)
    eroded[cut & neurite] = 0
    return eroded


def affinity_targets(
    labels: np.ndarray, annotated: np.ndarray, offsets: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """The affinity of every voxel to its partner at each offset, and where it is known.

    Two voxels belong together if they carry the same label other than 0; background has no affinity to anything.

    Args:
        labels: (z, y, x), any integer type; 0 is background.
        annotated: (z, y, x) bool, False where the label is not known.
        offsets: partners' positions relative to the voxel, in voxels.

    Returns:
        affinities: (k, z, y, x) uint8, 1 where voxel p and p + offset k belong together.
        mask: (k, z, y, x) uint8, 1 where both p and p + offset k lie inside the array and are annotated.
    """
    together = np.zeros((len(offsets), *labels.shape), dtype=bool)
    known = np.zeros_like(together)
    neurite = labels != 0
    neurite &= annotated
    for channel, offset in enumerate(offsets):
        here, there = pair_slices(offset, labels.shape)
        np.logical_and(annotated[here], annotated[there], out=known[channel][here])
        inside = together[channel][here]
        np.equal(labels[here], labels[there], out=inside)
        inside &= neurite[here]
        inside &= annotated[there]
    return together.view(np.uint8), known.view(np.uint8)


def _contact_voxels(labels: np.ndarray, neurite: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Voxels that share a face with a voxel of another neurite."""
    contact = np.zeros(labels.shape, dtype=bool)
    for axis in axes:
        before, behind = _neighbours(axis, labels.ndim)
        face = (labels[before] != labels[behind]) & neurite[before] & neurite[behind]
        contact[before] |= face
        contact[behind] |= face
    return contact


def _one_step_wider(voxels: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    wider = voxels.copy()
    for axis in axes:
        before, behind = _neighbours(axis, voxels.ndim)
        wider[before] |= voxels[behind]
        wider[behind] |= voxels[before]
    return wider


def _neighbours(axis: int, dimensions: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Indices of all voxels but the last, and but the first, along an axis."""
    before = [slice(None)] * dimensions
    behind = [slice(None)] * dimensions
    before[axis], behind[axis] = slice(None, -1), slice(1, None)
    return tuple(before), tuple(behind)
