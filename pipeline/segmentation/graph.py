"""The region adjacency graph (RAG) of fragments: who touches whom, how often, and with which affinity.

Statistics are sums, so the graphs of blocks add up to the graph of the volume. They add up *exactly*: affinities are
rounded to multiples of 2**-26 before they are summed, so a float64 sum has no rounding error, whatever the order
(up to 2**26 contacts of one edge). Each voxel pair belongs to the block that owns voxel p of the pair (p, p + offset).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..offsets import pair_slices
from .affinities import check_matching


@dataclass(frozen=True)
class RegionGraph:
    """Edges between touching fragments, sorted by (u, v), each once.

    Attributes:
        edges: (E, 2) uint64, u < v.
        count: (E,) int64, contacts (voxel pairs, over all offsets).
        affinity_sum: (E,) float64, sum of their affinities in [0, 1].
    """

    edges: np.ndarray
    count: np.ndarray
    affinity_sum: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(E,) float64, mean affinity of each edge."""
        result: np.ndarray = self.affinity_sum / np.maximum(self.count, 1)
        return result


def region_graph(
    affinities: np.ndarray, fragments: np.ndarray, offsets: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The region adjacency graph of an array.

    Args:
        affinities: (k, z, y, x), float in [0, 1] or uint8 (255 = certain); channel k at voxel p is the affinity
            between p and p + offset k.
        fragments: (z, y, x), ids; 0 is no fragment.
        offsets: one offset per channel in voxels, order z, y, x.

    Returns:
        edges (E, 2) uint64 with u < v, sorted; contact count (E,) int64; mean affinity (E,) float64 in [0, 1].

    Raises:
        ValueError: the arrays do not belong together.
    """
    graph = region_graph_statistics(affinities, fragments, offsets)
    return graph.edges, graph.count, graph.mean


def region_graph_statistics(
    affinities: np.ndarray,
    fragments: np.ndarray,
    offsets: Sequence[Sequence[int]],
    owned: tuple[slice, ...] | None = None,
) -> RegionGraph:
    """The summable form of `region_graph`, restricted to the voxel pairs (p, p + offset) whose p is owned.

    Args:
        affinities, fragments, offsets: as for `region_graph`.
        owned: slices of the owned voxels, order z, y, x; the arrays should reach beyond them by the offsets.
            Default: all.

    Raises:
        ValueError: the arrays do not belong together.
    """
    check_matching(affinities, fragments, offsets)
    from .contacts import count_contacts  # compiled: whoever counts none need not load a compiler

    places = [pair_slices(offset, fragments.shape, owned) for offset in offsets]
    return RegionGraph(*count_contacts(affinities, fragments.astype(np.uint64, copy=False), places))


def merge_graphs(graphs: Sequence[RegionGraph]) -> RegionGraph:
    """The sum of graphs, for example of all blocks of a volume."""
    if not graphs:
        return RegionGraph(np.zeros((0, 2), np.uint64), np.zeros(0, np.int64), np.zeros(0))
    edges, inverse = _unique_pairs(np.concatenate([graph.edges for graph in graphs]).T)
    count = np.bincount(inverse, np.concatenate([graph.count for graph in graphs]), len(edges)).astype(np.int64)
    sums = np.bincount(inverse, np.concatenate([graph.affinity_sum for graph in graphs]), len(edges))
    return RegionGraph(edges, count, sums)


def _unique_pairs(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct columns of a (2, n) array, sorted, as (E, 2); and for each column the row it became."""
    if pairs.shape[1] == 0:
        return np.zeros((0, 2), np.uint64), np.zeros(0, np.int64)
    lowest = pairs.min()
    if int(pairs.max()) - int(lowest) < 2**32:
        keys, inverse = np.unique(((pairs[0] - lowest) << np.uint64(32)) | (pairs[1] - lowest), return_inverse=True)
        return np.stack([keys >> np.uint64(32), keys & np.uint64(2**32 - 1)], axis=1) + lowest, inverse
    ids, positions = np.unique(pairs, return_inverse=True)
    first, second = positions.reshape(pairs.shape).astype(np.uint64)
    keys, inverse = np.unique((first << np.uint64(32)) | second, return_inverse=True)
    return np.stack([ids[keys >> np.uint64(32)], ids[keys & np.uint64(2**32 - 1)]], axis=1), inverse
