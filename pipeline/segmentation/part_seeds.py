"""A seed for every part of a volume that has none."""

from __future__ import annotations

import numpy as np

from .compiled import compiled


def seed_every_part(seeds: np.ndarray, parts: np.ndarray, smallest: int) -> None:
    """Fill every part without a seed with a new one, in place.

    Args:
        seeds: (z, y, x) int32, contiguous, 1 … n in seeds and 0 elsewhere; new ones are numbered n + 1, … in the order
            of parts.
        parts: (z, y, x) uint32, 1 … m, each voxel in one (see `connected_parts`).
        smallest: voxels of the smallest part that gets a seed.
    """
    assert seeds.flags.c_contiguous, "a copy would be filled, not the seeds"
    _seed_every_part(seeds.reshape(-1), parts.reshape(-1), smallest, int(seeds.max()), int(parts.max()))


@compiled
def _seed_every_part(seeds: np.ndarray, parts: np.ndarray, smallest: int, last_seed: int, last_part: int) -> None:
    """The same on flat arrays."""
    sizes = np.zeros(last_part + 1, np.int32)
    for voxel in range(len(parts)):
        part = parts[voxel]
        if seeds[voxel] > 0:
            sizes[part] = -1
        elif sizes[part] >= 0:
            sizes[part] += 1
    number = last_seed
    for part in range(len(sizes)):
        if sizes[part] >= smallest:
            number += 1
            sizes[part] = number
        else:
            sizes[part] = 0
    for voxel in range(len(parts)):
        if seeds[voxel] == 0:
            seeds[voxel] = sizes[parts[voxel]]
