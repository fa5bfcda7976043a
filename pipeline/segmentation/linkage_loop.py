"""Average linkage as a loop over a heap of edges, compiled; `linkage.py` and `regional_linkage.py` prepare its arrays.

Sums and counts are whole numbers, and means are compared as fractions, without rounding. So the mean of a merged edge
lies between those of the two that it was made of, exactly, and two clusters that are each other's nearest stay so
whatever is merged elsewhere: average linkage can be computed in parts. Of equal means the edge with the smallest index
comes first, and a merged edge keeps the smaller index of the two.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .compiled import compiled

_ROUNDING = 2.0**-50
"""Means in [0, 1] that differ by more than this differ in the same direction as fractions."""
_LOW_BITS = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_NONE = np.int32(-1)


class _Edges(NamedTuple):
    """What is known of the edges, by index, and where they are found by their ends.

    Attributes:
        ends: (2 E,) int32; side 2 e and side 2 e + 1 of edge e, each the node that holds the cluster there.
        sums, counts, means: (E,).
        into: (E,) int32, the edge that each became a part of; itself while it is there.
        buckets: (2^n,) int32, the first edge of each bucket of a hash table over the ends; -1 where there is none.
        chain: (E,) int32, the next edge of the same bucket.
    """

    ends: np.ndarray
    sums: np.ndarray
    counts: np.ndarray
    means: np.ndarray
    into: np.ndarray
    buckets: np.ndarray
    chain: np.ndarray


class _Clusters(NamedTuple):
    """What is known of the clusters, by the node that holds each, and the sides of edges that lie at it, as a list.

    Attributes:
        holder: (N,) int32, the node that a node's cluster was merged into; itself while it holds its own.
        smallest: (N,) int32, the smallest node of the cluster.
        head, tail, length: (N,) int32, first and last side of an edge at the cluster, and how many there are, with
            those of edges that are there no more.
        following: (2 E,) int32, the next side at the same cluster.
    """

    holder: np.ndarray
    smallest: np.ndarray
    head: np.ndarray
    tail: np.ndarray
    length: np.ndarray
    following: np.ndarray


class _Heap(NamedTuple):
    """Edges, the first to be merged on top.

    Attributes:
        slots: (E,) int32, edges, each before the two at twice its place plus 1 and 2.
        place: (E,) int32, where each edge is; -1 if it is not in the heap.
        size: (1,) int64, how many slots are in use.
    """

    slots: np.ndarray
    place: np.ndarray
    size: np.ndarray


@compiled
def _product(a: int, b: int) -> tuple[np.uint64, np.uint64]:
    """The product of two int64 that are not negative as two uint64, high and low."""
    a_high, a_low = np.uint64(a) >> _HALF, np.uint64(a) & _LOW_BITS
    b_high, b_low = np.uint64(b) >> _HALF, np.uint64(b) & _LOW_BITS
    low = a_low * b_low
    middle = a_high * b_low + (low >> _HALF)
    other = a_low * b_high + (middle & _LOW_BITS)
    return a_high * b_high + (middle >> _HALF) + (other >> _HALF), (other << _HALF) | (low & _LOW_BITS)


@compiled
def _comes_first(edges: _Edges, e: int, f: int) -> bool:
    """Whether edge e is merged before edge f: its mean is larger, or equal and its index smaller."""
    difference = edges.means[e] - edges.means[f]
    if difference > _ROUNDING:
        return True
    if difference < -_ROUNDING:
        return False
    high, low = _product(edges.sums[e], edges.counts[f])
    other_high, other_low = _product(edges.sums[f], edges.counts[e])
    if high != other_high:
        return bool(high > other_high)
    if low != other_low:
        return bool(low > other_low)
    return e < f


@compiled
def _rise(heap: _Heap, edges: _Edges, e: int) -> None:
    """Move an edge of the heap towards the top, as far as it belongs."""
    slot = heap.place[e]
    while slot > 0:
        above = (slot - 1) // 2
        f = heap.slots[above]
        if not _comes_first(edges, e, f):
            break
        heap.slots[slot] = f
        heap.place[f] = slot
        slot = above
    heap.slots[slot] = e
    heap.place[e] = slot


@compiled
def _sink(heap: _Heap, edges: _Edges, e: int) -> None:
    """Move an edge of the heap away from the top, as far as it belongs."""
    slot, size = heap.place[e], heap.size[0]
    below = 2 * slot + 1
    while below < size:
        if below + 1 < size and _comes_first(edges, heap.slots[below + 1], heap.slots[below]):
            below += 1
        f = heap.slots[below]
        if not _comes_first(edges, f, e):
            break
        heap.slots[slot] = f
        heap.place[f] = slot
        slot = below
        below = 2 * slot + 1
    heap.slots[slot] = e
    heap.place[e] = slot


@compiled
def _take_out(heap: _Heap, edges: _Edges, e: int) -> None:
    """Take an edge out of the heap."""
    slot = heap.place[e]
    heap.place[e] = -1
    heap.size[0] -= 1
    last = heap.slots[heap.size[0]]
    if last != e:
        heap.slots[slot] = last
        heap.place[last] = slot
        _rise(heap, edges, last)
        _sink(heap, edges, last)


@compiled
def _bucket(edges: _Edges, a: int, b: int) -> int:
    """Where the edge between two clusters is looked up."""
    mixed = np.uint64(min(a, b)) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(max(a, b)) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.int64((mixed ^ (mixed >> _HALF)) & np.uint64(len(edges.buckets) - 1))  # type: ignore[return-value]


@compiled
def _enter(edges: _Edges, e: int) -> None:
    """Have an edge found by its ends."""
    bucket = _bucket(edges, edges.ends[2 * e], edges.ends[2 * e + 1])
    edges.chain[e] = edges.buckets[bucket]
    edges.buckets[bucket] = e


@compiled
def _forget(edges: _Edges, e: int) -> None:
    """The opposite of `_enter`, with the same ends."""
    bucket = _bucket(edges, edges.ends[2 * e], edges.ends[2 * e + 1])
    f = edges.buckets[bucket]
    if f == e:
        edges.buckets[bucket] = edges.chain[e]
        return
    while edges.chain[f] != e:
        f = edges.chain[f]
    edges.chain[f] = edges.chain[e]


@compiled
def _edge_between(edges: _Edges, a: int, b: int) -> int:
    """The edge between two clusters; -1 if there is none."""
    e = edges.buckets[_bucket(edges, a, b)]
    while e >= 0:
        first, second = edges.ends[2 * e], edges.ends[2 * e + 1]
        if (first == a and second == b) or (first == b and second == a):
            break
        e = edges.chain[e]
    return int(e)


@compiled
def _append(clusters: _Clusters, node: int, side: int) -> None:
    """Add a side of an edge to the list of a cluster."""
    clusters.following[side] = _NONE
    if clusters.tail[node] < 0:
        clusters.head[node] = side
    else:
        clusters.following[clusters.tail[node]] = side
    clusters.tail[node] = side
    clusters.length[node] += 1


@compiled
def _unite(edges: _Edges, heap: _Heap, e: int, f: int, unit: float) -> bool:
    """Make one edge of two between the same clusters, of which only f is found by its ends; whether that went well."""
    survivor, part = min(e, f), max(e, f)
    if part == f:
        _forget(edges, f)
    edges.into[part] = survivor
    edges.sums[survivor] += edges.sums[part]
    edges.counts[survivor] += edges.counts[part]
    _take_out(heap, edges, part)
    edges.means[survivor] = edges.sums[survivor] * unit / edges.counts[survivor]
    _rise(heap, edges, survivor)
    _sink(heap, edges, survivor)
    return bool(edges.sums[survivor] > 0 or edges.sums[part] == 0) and bool(edges.counts[survivor] > 0)


@compiled
def _move_edges(edges: _Edges, clusters: _Clusters, heap: _Heap, kept: int, gone: int, unit: float) -> bool:
    """Give the edges of a cluster that was merged to the cluster that it has become a part of; whether sums fit."""
    fits, side = True, clusters.head[gone]
    while side >= 0:
        after, e = clusters.following[side], side // 2
        if edges.into[e] == e and heap.place[e] >= 0:
            _forget(edges, e)
            f = _edge_between(edges, kept, edges.ends[side ^ 1])
            edges.ends[side] = kept
            if f >= 0:
                fits &= _unite(edges, heap, e, f, unit)
            if edges.into[e] == e:
                _enter(edges, e)
                _append(clusters, kept, side)
        side = after
    return fits


@compiled
def _prepared(
    ends: np.ndarray, sums: np.ndarray, counts: np.ndarray, unit: float, is_open: np.ndarray
) -> tuple[_Edges, _Clusters, _Heap]:
    """The edges, each found by its ends, at its clusters and, if it may be merged, in the heap."""
    number, nodes, table_size = len(sums), len(is_open), 1
    while table_size < number:
        table_size *= 2
    all_edges, own, none = np.arange(number).astype(np.int32), np.arange(nodes).astype(np.int32), np.full(nodes, _NONE)
    buckets, chain, following = np.full(table_size, _NONE), np.full(number, _NONE), np.full(2 * number, _NONE)
    edges = _Edges(ends, sums, counts, sums * unit / counts, all_edges, buckets, chain)
    clusters = _Clusters(own, own.copy(), none, none.copy(), np.zeros(nodes, np.int32), following)
    heap = _Heap(np.empty(number, np.int32), np.full(number, _NONE), np.zeros(1, np.int64))
    for e in range(number):
        _enter(edges, e)
        first, second = ends[2 * e], ends[2 * e + 1]
        _append(clusters, first, 2 * e)
        _append(clusters, second, 2 * e + 1)
        if not (is_open[first] and is_open[second]):
            heap.place[e] = heap.size[0]
            heap.slots[heap.size[0]] = e
            heap.size[0] += 1
    for slot in range(heap.size[0] // 2 - 1, -1, -1):
        _sink(heap, edges, heap.slots[slot])
    return edges, clusters, heap


@compiled
def merge_nearest(
    ends: np.ndarray, sums: np.ndarray, counts: np.ndarray, unit: float, is_open: np.ndarray, lowest_mean: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Merge clusters, the nearest first, as long as all edges of both are known.

    Args:
        ends: (2 E,) int32, the two nodes of each edge, one after another; each pair once. At the end, the nodes that
            hold the clusters there.
        sums, counts: (E,) int64, whole numbers of units, and contacts, at least one. At the end, those of clusters.
        unit: what the sums count, so that sum * unit / count is a mean affinity in [0, 1].
        is_open: (N,) bool, nodes of which not all edges are here. At the end, clusters that have to wait until more is
            known; the others are merged with nobody any more.
        lowest_mean: merging ends below this mean affinity.

    Returns:
        into: (E,) int32, the edge that each became a part of; itself where it did not.
        merged_mean: (E,) float64, the mean affinity at which an edge that stood for itself was merged; NaN elsewhere.
        cluster: (N,) int32, the smallest node of the cluster of each node.
        fits: whether all sums are in the range of int64; nothing else is of use if not.
    """
    edges, clusters, heap = _prepared(ends, sums, counts, unit, is_open)
    merged_mean, fits = np.full(len(sums), np.nan), True
    while heap.size[0] > 0 and fits:
        nearest = heap.slots[0]
        if edges.means[nearest] < lowest_mean:
            break
        _take_out(heap, edges, nearest)
        kept, gone = ends[2 * nearest], ends[2 * nearest + 1]
        if is_open[kept] or is_open[gone]:
            is_open[kept] = is_open[gone] = True  # whose nearest may still change has to wait for it
            continue
        merged_mean[nearest] = edges.means[nearest]
        _forget(edges, nearest)
        if clusters.length[kept] < clusters.length[gone]:
            kept, gone = gone, kept
        clusters.holder[gone] = kept
        clusters.smallest[kept] = min(clusters.smallest[kept], clusters.smallest[gone])
        fits = _move_edges(edges, clusters, heap, kept, gone, unit)
    for e in range(len(sums)):
        edges.into[e] = edges.into[edges.into[e]]  # what it became a part of has a smaller index, so that is the last
    return edges.into, merged_mean, _smallest_nodes(clusters), fits


@compiled
def _smallest_nodes(clusters: _Clusters) -> np.ndarray:
    """(N,) int32, the smallest node of the cluster of each node."""
    holder = clusters.holder
    result = np.empty(len(holder), np.int32)
    for node in range(len(holder)):
        root = node
        while holder[root] != root:
            root = holder[root]
        result[node] = clusters.smallest[root]
        walked = node
        while holder[walked] != root and walked != root:  # so that the next one need not go the same way
            walked, holder[walked] = holder[walked], root
    return result
