"""Affinities of a patch that were given instead of embedded: read from a disk, or by another program's network."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..offsets import pair_slices
from .patch import Cosines, Offsets

UNKNOWN = -1.0
"""The value of affinities that nobody gave."""


class GivenAffinities:
    """What stands in for an `EmbeddedPatch` where losses look at affinities alone.

    The affinity of p and p + offset is that of p + offset and its partner at -offset, so that either channel serves.

    Args:
        affinities: (B, K, *spatial) in [0, 1], or `UNKNOWN`.
        offsets: of the channels, in voxels, one number per spatial axis.
    """

    least_length = 0.0

    def __init__(self, affinities: torch.Tensor, offsets: Offsets) -> None:
        self.values = affinities
        self.offsets = [tuple(offset) for offset in offsets]

    @property
    def shape(self) -> torch.Size:
        """Shape of the affinities, (B, K, *spatial)."""
        return self.values.shape

    def affinities(self, offsets: Offsets) -> Cosines:
        """For each offset, the index of the voxels whose partner lies inside, and their affinities (B, *overlap).

        Raises:
            ValueError: no channel has an offset or its opposite.
        """
        pairs = []
        for offset in map(tuple, offsets):
            here, there = pair_slices(offset, self.shape[2:])
            channel, is_opposite = channel_of(offset, self.offsets)
            pairs.append((here, self.values[:, channel][(slice(None), *(there if is_opposite else here))]))
        return pairs


def channel_of(offset: Sequence[int], offsets: Sequence[Sequence[int]]) -> tuple[int, bool]:
    """The channel that tells of the partners at an offset, and whether it is the channel of the opposite offset.

    Raises:
        ValueError: there is none.
    """
    listed = [tuple(one) for one in offsets]
    if tuple(offset) in listed:
        return listed.index(tuple(offset)), False
    return listed.index(tuple(-step for step in offset)), True
