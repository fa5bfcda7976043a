"""Fragments as supervoxels of PyChunkedGraph, whose ids say in which chunk they lie. A chunk is a block.

The layer (1) has the highest 8 bits of an id, the chunk's place along x, y, z has `SPATIAL_BITS` each, a number has the
rest (https://github.com/CAVEconnectome/PyChunkedGraph, graph/chunks/utils.py).
"""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from ...engine.blocks.grid import Block, BlockGrid
from ...errors import UserError
from .segments import RelabelledFragments

LAYER_BITS, SPATIAL_BITS = 8, 10


def chunk_id(grid: BlockGrid, block: int) -> int:
    """What the ids of a chunk's supervoxels begin with.

    Raises:
        UserError: there are more chunks than the ids have room for.
    """
    z, y, x = (int(position) for position in np.unravel_index(block, tuple(grid.shape)))
    if max(z, y, x) >= 2**SPATIAL_BITS:
        raise UserError(f"PyChunkedGraph has room for {2**SPATIAL_BITS} chunks along an axis", "predict.block_size")
    first = 64 - LAYER_BITS
    place = x << (first - SPATIAL_BITS) | y << (first - 2 * SPATIAL_BITS) | z << (first - 3 * SPATIAL_BITS)
    return 1 << first | place


def supervoxel_ids(fragments: np.ndarray, grid: BlockGrid) -> np.ndarray:
    """The ids that PyChunkedGraph gives to fragments.

    Args:
        fragments: (N,) uint64, none of them 0.
        grid: of the run, whose blocks are the chunks.
    """
    blocks, local = np.divmod(fragments - np.uint64(1), np.uint64(grid.voxels_per_block))
    unique, place = np.unique(blocks, return_inverse=True)
    chunks = np.array([chunk_id(grid, int(block)) for block in unique], np.uint64)
    result: np.ndarray = (chunks[place] if len(unique) else np.zeros(0, np.uint64)) + local + np.uint64(1)
    return result


class SupervoxelVolume(RelabelledFragments):
    """Fragments with the ids of PyChunkedGraph."""

    @override
    def renamed(self, fragments: np.ndarray, block: Block) -> np.ndarray:
        first, _ = self.grid.fragment_ids(block)
        shift = np.uint64((chunk_id(self.grid, block.index) + 1 - first) % 2**64)  # modulo 2**64, as the sum is
        return np.where(fragments > 0, fragments + shift, np.uint64(0))
