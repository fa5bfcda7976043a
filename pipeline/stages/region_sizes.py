"""How many edges the first regions of linkage have, before they are linked: for the plan."""

from __future__ import annotations

import numpy as np
from funlib.geometry import Coordinate

from ..engine.blocks.grid import BlockGrid
from ..engine.tracking.markers import done_blocks
from ..units import short_number, times
from .region_graph import RagTask, open_graph
from .windowed_linkage import BYTES_PER_EDGE

EDGES_PER_VOXEL = 0.0022
"""Of a network's fragments, as measured; before there is a graph, nobody knows better."""


def edges_of_blocks(graph: RagTask) -> np.ndarray | None:
    """(z, y, x) int64 over the block grid, rows of edges in the graph store; None unless all blocks are done."""
    if graph.is_missing() or graph.stored_key() != graph.key or not (done_blocks(graph) | graph.empty).all():
        return None
    edges = np.zeros(len(graph.grid), np.int64)
    with open_graph(graph.run) as store:
        blocks, rows = store.edges_per_block()
    inside = blocks < len(edges)
    edges[blocks[inside]] = rows[inside]
    return edges.reshape(tuple(graph.grid.shape))


def largest_region(edges: np.ndarray, blocks: Coordinate) -> int:
    """The most edges of a region of so many blocks along z, y, x; edges (z, y, x) are those of each block."""
    for axis, per in enumerate(blocks):
        edges = np.add.reduceat(edges, np.arange(0, edges.shape[axis], per), axis=axis)
    return int(edges.max())


def memory_in_words(grid: BlockGrid, blocks: Coordinate, edges: np.ndarray | None, memory: float) -> str:
    """What the regions need, in words.

    Args:
        grid: of the graph's blocks.
        blocks: of a region, along z, y, x.
        edges: of each block, as of `edges_of_blocks`; None if it is not known.
        memory: bytes that a task may take.
    """
    estimated = edges is None
    if edges is None:
        edges = np.full(tuple(grid.shape), EDGES_PER_VOXEL * grid.voxels_per_block)
    largest = largest_region(edges, blocks)
    needed = f"{largest * BYTES_PER_EDGE / 1e9:.2g} of {memory / 1e9:g} GB (agglomerate.memory)"
    basis = f"about {EDGES_PER_VOXEL} per voxel, as networks make them" if estimated else "as counted"
    text = f"{short_number(largest)} in the largest region ({basis}), {needed}"
    if largest * BYTES_PER_EDGE <= memory:
        return text
    fitting = blocks
    while largest_region(edges, fitting) * BYTES_PER_EDGE > memory and max(fitting) > 1:
        longest = max(range(3), key=lambda axis: fitting[axis] * grid.block_size[axis] if fitting[axis] > 1 else 0)
        fitting = Coordinate(-(-per // 2) if axis == longest else per for axis, per in enumerate(fitting))
    least = largest_region(edges, fitting) * BYTES_PER_EDGE
    size = times(fitting * grid.block_size)
    cure = (
        f"agglomerate.region_size {size} would fit"
        if least <= memory
        else f"not even a block ({size}) fits, which takes {least / 1e9:.2g} GB"
    )
    return f"{text}; linked from the disk, which is slower: {cure}"
