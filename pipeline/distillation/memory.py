"""Memory of past images, as the teacher saw them: what the inter-image terms compare the current image with."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .instances import instance_nodes
from .maps import unit_map

DEFAULT_POOL = {2: (7, 7), 3: (3, 7, 7)}


class MemoryEntry(NamedTuple):
    """What is remembered of an image.

    Attributes:
        nodes: (I, D) the teacher's instance nodes; I may be 0.
        pooled: (D, *coarse) the teacher's embedding, normalised per voxel, then pooled.
    """

    nodes: torch.Tensor
    pooled: torch.Tensor


class MemoryBank(nn.Module):
    """The last images of the training, oldest first; a new one takes the place of the oldest.

    Its content belongs to the module's state: a resumed training samples what the undisturbed one would have sampled.

    Args:
        size: images remembered.
        pool: extent of the pooling windows in voxels. Default: 7 x 7 in 2D, 3 x 7 x 7 in 3D.
        least_length: of the teacher's embeddings, see `embedding_affinities`.
    """

    def __init__(self, size: int = 32, pool: Sequence[int] | None = None, least_length: float = 0.0) -> None:
        super().__init__()
        self.least_length = least_length
        self.pool = None if pool is None else tuple(pool)
        self._entries: deque[MemoryEntry] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._entries)

    @torch.no_grad()
    def enqueue(self, teacher: torch.Tensor, labels: torch.Tensor) -> None:
        """Store nodes and pooled map of every image of a batch; the oldest images make room.

        Args:
            teacher: (B, D, *spatial) embedding by the teacher.
            labels: (B, *spatial) int64; values above 0 are instances.
        """
        nodes = [nodes for _, nodes in instance_nodes(teacher, labels)]
        self.remember(nodes, pooled_map(unit_map(teacher, self.least_length), self.pool))

    @torch.no_grad()
    def remember(self, nodes: Sequence[torch.Tensor], pooled: torch.Tensor) -> None:
        """Remember a batch of which this is known already.

        Args:
            nodes: for each image (I, D), the teacher's.
            pooled: (B, D, *coarse), the teacher's; see `pooled_map`.
        """
        for of_image, coarse in zip(nodes, pooled, strict=True):
            self._entries.append(MemoryEntry(of_image.clone(), coarse.clone()))

    def sample(self, count: int, generator: torch.Generator | None = None) -> list[MemoryEntry]:
        """Distinct remembered images, drawn at random: `count` of them, or all if there are fewer.

        Args:
            count: images wanted.
            generator: on the CPU. Default: torch's own.
        """
        order = torch.randperm(len(self), generator=generator)[:count]
        return [self._entries[index] for index in order.tolist()]

    def get_extra_state(self) -> dict[str, Any]:
        """The remembered images, oldest first."""
        return {"entries": [{"nodes": entry.nodes, "pooled": entry.pooled} for entry in self._entries]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Remember what another bank remembered; the newest of it, if this one is smaller."""
        self._entries.clear()
        self._entries.extend(MemoryEntry(entry["nodes"], entry["pooled"]) for entry in state["entries"])


def pooled_map(unit: torch.Tensor, pool: Sequence[int] | None = None) -> torch.Tensor:
    """A coarse map of an embedding, averaged over windows; windows at the end may be smaller, and none is
    larger than the map.

    Args:
        unit: (B, D, *spatial), of unit length per voxel, see `unit_map`.
        pool: extent of the windows in voxels, also their distance.

    Returns:
        (B, D, *coarse).
    """
    dimensions = unit.dim() - 2
    wanted = tuple(pool) if pool is not None else DEFAULT_POOL[dimensions]
    window = [min(extent, size) for extent, size in zip(wanted, unit.shape[2:], strict=True)]
    if dimensions == 2:
        return F.avg_pool2d(unit, window, ceil_mode=True)
    return F.avg_pool3d(unit, window, ceil_mode=True)
