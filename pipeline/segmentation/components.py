"""From merge decisions to segments: connected components, lookup tables, relabelling.

A lookup table (LUT) is an array (N, 2) uint64 of fragment id and segment id, sorted by fragment id. A segment carries
the smallest id of its fragments, so a LUT does not depend on the order in which anything was computed.
"""

from __future__ import annotations

import numpy as np

from .small_segments import SmallSegments, joining_edges


def connected_components(
    nodes: np.ndarray,
    edges: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    small: SmallSegments | None = None,
) -> np.ndarray:
    """The LUT that joins fragments along all edges with a score of at most `threshold`.

    Args:
        nodes: (N,) fragment ids; ids that occur only in `edges` are added.
        edges: (E, 2) fragment ids.
        scores: (E,) merge scores; NaN never merges.
        threshold: largest score that merges.
        small: what more joins small segments.

    Returns:
        LUT (N, 2) uint64, sorted by fragment id; a segment carries the smallest id of its fragments.
    """
    edges = np.asarray(edges, np.uint64).reshape(-1, 2)
    ids = unique_ids(nodes, edges)
    if small is None:
        return join_pairs(ids, np.searchsorted(ids, edges[np.asarray(scores) <= threshold]))
    pairs = np.searchsorted(ids, edges)
    return join_pairs(ids, pairs[joining_edges(ids, pairs, scores, threshold, small)])


def join_pairs(ids: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The LUT that joins fragments which are given by their places.

    Args:
        ids: (N,) ids of all fragments, sorted.
        pairs: (E, 2) places in `ids` of those that are one.
    """
    from scipy.sparse import coo_matrix  # slow to import, and workers need none of it
    from scipy.sparse.csgraph import connected_components as label_components

    matrix = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(ids), len(ids)))
    count, component = label_components(matrix, directed=False) if len(ids) else (0, np.zeros(0, np.int64))
    smallest = np.full(count, len(ids), np.int64)
    np.minimum.at(smallest, component, np.arange(len(ids)))
    return np.stack([ids, ids[smallest[component]]], axis=1)


def drop_small(lut: np.ndarray, ids: np.ndarray, sizes: np.ndarray, minimum_size: int) -> np.ndarray:
    """A LUT in which segments with fewer voxels are 0.

    Args:
        lut: (N, 2) uint64, fragment and segment.
        ids: (M,) ids of all fragments of the LUT, sorted.
        sizes: (M,) their voxels.
        minimum_size: voxels that a segment has at least.
    """
    _, segment = np.unique(lut[:, 1], return_inverse=True)
    voxels = np.bincount(segment, weights=sizes[np.searchsorted(ids, lut[:, 0])])
    kept = lut.copy()
    kept[voxels[segment] < minimum_size, 1] = 0
    return kept


def unique_ids(nodes: np.ndarray | None, edges: np.ndarray) -> np.ndarray:
    """All fragment ids of a graph, sorted, uint64."""
    given = np.asarray([] if nodes is None else nodes, np.uint64)
    return np.unique(np.concatenate([given.ravel(), np.asarray(edges, np.uint64).ravel()]))


def relabel(array: np.ndarray, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Replace every id of an array by a value.

    Args:
        array: non-negative ids of any shape.
        ids: (N,) sorted ids.
        values: (N,) what replaces each of them.

    Returns:
        An array of the shape of `array` and the dtype of `values`; 0 and ids that are not listed become 0.
    """
    array, ids = np.asarray(array).astype(np.uint64, copy=False), np.asarray(ids, np.uint64)
    values = np.asarray(values)
    if len(ids) == 0:
        return np.zeros(array.shape, values.dtype)
    if int(ids[-1]) - int(ids[0]) + 1 == len(ids):
        return _relabel_range(array, int(ids[0]), values)
    position = np.minimum(np.searchsorted(ids, array), len(ids) - 1)
    found = (ids[position] == array) & (array != 0)
    return np.where(found, values[position], values.dtype.type(0))


def _relabel_range(array: np.ndarray, first: int, values: np.ndarray) -> np.ndarray:
    """`relabel` for ids without gaps: one table look-up per voxel."""
    table = np.append(values, values.dtype.type(0))
    if first == 0:
        table[0] = 0
    place = np.minimum(array - np.uint64(first), np.uint64(len(values)))  # ids below the first wrap beyond the last
    return table[place.view(np.int64)]
