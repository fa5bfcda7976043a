"""Which instances touch, how much of them touches, and which ones the border of the patch cuts to a sliver."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..offsets import pair_slices
from .instances import Instances, find_instances
from .maps import crop


def contacts(instances: Instances, spatial: Sequence[int], distances: Sequence[int]) -> torch.Tensor:
    """How much instances touch: the pairs of voxels, one of each, that lie a distance apart along an axis.

    Where a cut of two voxels was made between two instances, that are as many as they had faces in common if the
    distance is three.

    Args:
        instances: of a batch.
        spatial: extent of an image.
        distances: in voxels, one per axis; 0 leaves the axis out.

    Returns:
        (B, I, I) int64, symmetric, 0 on the diagonal and in unused places.
    """
    batch, width = instances.present.shape
    places = instances.places.view(batch, *spatial)
    count = width + 1  # the last place is that of no instance
    image = torch.arange(batch, device=places.device).view(batch, *(1 for _ in spatial))
    pairs = torch.zeros(batch * count * count, dtype=torch.int64, device=places.device)
    for axis, distance in enumerate(distances):
        if not 0 < distance < spatial[axis]:
            continue
        here, there = pair_slices([distance if other == axis else 0 for other in range(len(spatial))], spatial)
        index = (image * count + crop(places, here)) * count + crop(places, there)
        pairs += torch.bincount(index.flatten(), minlength=len(pairs))
    table = pairs.view(batch, count, count)[:, :width, :width]
    table = table + table.transpose(1, 2)
    return table * ~torch.eye(width, dtype=torch.bool, device=table.device)


def without_slivers(labels: torch.Tensor, least_depth: int) -> torch.Tensor:
    """Labels without the instances that the border of the patch cuts, and that nowhere lie as deep inside it.

    Args:
        labels: (B, *spatial) int64; values above 0 are instances.
        least_depth: voxels from the border at which an instance must have one of its own, along all axes that are
            longer than twice that; the outermost voxels lie 0 deep. Instances that reach no border always stay.

    Returns:
        (B, *spatial), 0 where a sliver was.
    """
    depth = _depth(labels.shape[1:], least_depth, labels.device)
    if depth is None:
        return labels
    instances = find_instances(labels)
    batch, width = instances.present.shape
    depths = depth.flatten().expand(batch, -1)
    empty = torch.zeros(batch, width + 1, dtype=depths.dtype, device=labels.device)
    deepest = empty.scatter_reduce(1, instances.places, depths, "amax", include_self=False)
    outermost = empty.scatter_reduce(1, instances.places, depths, "amin", include_self=False)
    sliver = (outermost == 0) & (deepest < least_depth)
    sliver[:, width] = False
    return labels.masked_fill(sliver.gather(1, instances.places).view(labels.shape), 0)


def _depth(spatial: Sequence[int], least_depth: int, device: torch.device) -> torch.Tensor | None:
    """How far each voxel lies from the border, (*spatial) int64, along the axes that are long enough; None if none."""
    depth: torch.Tensor | None = None
    for axis, extent in enumerate(spatial):
        if least_depth == 0 or extent <= 2 * least_depth:
            continue
        along = torch.arange(extent, device=device)
        along = torch.minimum(along, extent - 1 - along).view(
            [-1 if other == axis else 1 for other in range(len(spatial))]
        )
        depth = along.expand(*spatial) if depth is None else torch.minimum(depth, along)
    return depth
