"""Expected run length (ERL): how far one can follow a neurite from a random point before the first error."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np

Segments = np.ndarray | Mapping[Any, int]


def expected_run_length(
    skeletons: nx.Graph | Iterable[nx.Graph],
    segments: Segments,
    *,
    voxel_size: Sequence[float] = (1, 1, 1),
    offset: Sequence[float] = (0, 0, 0),
    merge_nodes: int = 1,
) -> float:
    """Expected run length in the unit of the positions, after Januszewski et al. (Nature Methods 2018).

    An edge of a skeleton is traced correctly if both its nodes lie in one segment, and that segment runs through no
    other skeleton. A run is all that one segment traces correctly of one skeleton. A random point of a skeleton lies
    on a run with the probability run / all; the expectation of its length is sum(run²) / length of all skeletons.

    Args:
        skeletons: one graph per neurite, or one graph whose connected components are the neurites. Each node has a
            `position`, order z, y, x, in nanometres.
        segments: the segmentation (z, y, x), or the segment of each node. 0 is no segment.
        voxel_size: nanometres, if `segments` is an array.
        offset: position of the array's first voxel's corner; nodes outside the array lie in no segment.
        merge_nodes: a segment runs through a skeleton if at least so many nodes of it lie in the segment. More than 1
            forgives single misplaced nodes.

    Returns:
        The expected run length; 0 if the skeletons have no length.

    Raises:
        ValueError: a node has no position, or no segment is given for it.
    """
    neurites = _neurites(skeletons)
    segment_of = [_node_segments(neurite, segments, voxel_size, offset) for neurite in neurites]
    merged = _merged_segments(segment_of, merge_nodes)
    total, squares = 0.0, 0.0
    for neurite, segment in zip(neurites, segment_of, strict=True):
        runs: dict[int, float] = defaultdict(float)
        for u, v in neurite.edges:
            length = float(np.linalg.norm(_position(neurite, u) - _position(neurite, v)))
            total += length
            if segment[u] == segment[v] != 0 and segment[u] not in merged:
                runs[segment[u]] += length
        squares += sum(run**2 for run in runs.values())
    return squares / total if total > 0 else 0.0


def _neurites(skeletons: nx.Graph | Iterable[nx.Graph]) -> list[nx.Graph]:
    if isinstance(skeletons, nx.Graph):
        return [skeletons.subgraph(nodes) for nodes in nx.connected_components(skeletons.to_undirected(as_view=True))]
    return list(skeletons)


def _node_segments(
    neurite: nx.Graph, segments: Segments, voxel_size: Sequence[float], offset: Sequence[float]
) -> dict[Hashable, int]:
    """The segment of every node of a skeleton."""
    if isinstance(segments, Mapping):
        missing = [node for node in neurite if node not in segments]
        if missing:
            raise ValueError(f"no segment is given for node {missing[0]!r}")
        return {node: int(segments[node]) for node in neurite}
    located = {}
    for node in neurite:
        voxel = np.floor((_position(neurite, node) - offset) / voxel_size).astype(np.int64)
        inside = (voxel >= 0).all() and (voxel < segments.shape).all()
        located[node] = int(segments[tuple(voxel)]) if inside else 0
    return located


def _merged_segments(segment_of: list[dict[Hashable, int]], merge_nodes: int) -> set[int]:
    """Segments that run through more than one skeleton."""
    skeletons_of = Counter(
        segment
        for nodes in segment_of
        for segment, count in Counter(nodes.values()).items()
        if segment != 0 and count >= merge_nodes
    )
    return {segment for segment, count in skeletons_of.items() if count > 1}


def _position(neurite: nx.Graph, node: Hashable) -> np.ndarray:
    try:
        return np.asarray(neurite.nodes[node]["position"], np.float64)
    except KeyError:
        raise ValueError(f"node {node!r} has no position") from None
