"""Expected run length (ERL): how far one can follow a neurite from a random point before the first error.

Every edge of a skeleton is one of four: `omitted`, an end lies in no segment; `split`, the ends lie in two segments;
`merged`, they lie in one segment that is merged with something else; or `correct`. All that one segment traces
correctly of one skeleton is a run. A random point of the skeletons lies on a run with the probability run / all, so
the expected length is ERL = sum(run^2) / length of all skeletons (Januszewski et al., Nature Methods 2018). Without an
error it is sum(length^2) / length of all skeletons; what a segmentation reaches of that is its normalised ERL.

A segment is merged if at least `merge_threshold` nodes of each of two skeletons lie in it (Wei et al., AxonEM, MICCAI
2021), or as many voxels of a mask of what no skeleton belongs to, for example other cells (em_erl's no-merge mask).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from ..volumes import Box

Segments = np.ndarray | Mapping[Any, int]

ON_A_FACE = 1e-4
"""A position up to this part of a voxel before a face lies behind it: 3 · 0.1 / 0.1 is not always 3."""


@dataclass(frozen=True)
class Skeletons:
    """The skeletons of neurites, all in one.

    Attributes:
        names: of the skeletons.
        owner: (N,) int64 the skeleton of each node, as a place in `names`.
        positions: (N, 3) float64 nanometres, z, y, x.
        edges: (E, 2) int64 nodes; both of one skeleton.
        lengths: (E,) float64 nanometres.
    """

    names: tuple[str, ...]
    owner: np.ndarray
    positions: np.ndarray
    edges: np.ndarray
    lengths: np.ndarray

    @staticmethod
    def of(names: Sequence[str], owner: np.ndarray, positions: np.ndarray, edges: np.ndarray) -> Skeletons:
        """Skeletons whose edges are straight."""
        positions, edges = np.asarray(positions, np.float64).reshape(-1, 3), np.asarray(edges, np.int64).reshape(-1, 2)
        lengths = np.linalg.norm(positions[edges[:, 0]] - positions[edges[:, 1]], axis=1)
        return Skeletons(tuple(names), np.asarray(owner, np.int64), positions, edges, lengths)

    @staticmethod
    def joined(parts: Sequence[Skeletons]) -> Skeletons:
        """The skeletons of all parts."""
        skeletons = np.cumsum([0, *(len(part.names) for part in parts)])
        nodes = np.cumsum([0, *(len(part.owner) for part in parts)])
        none = Skeletons.of((), np.zeros(0), np.zeros((0, 3)), np.zeros((0, 2)))
        return Skeletons(
            tuple(name for part in parts for name in part.names),
            np.concatenate([none.owner, *(part.owner + first for part, first in zip(parts, skeletons, strict=False))]),
            np.concatenate([none.positions, *(part.positions for part in parts)]),
            np.concatenate([none.edges, *(part.edges + first for part, first in zip(parts, nodes, strict=False))]),
            np.concatenate([none.lengths, *(part.lengths for part in parts)]),
        )

    def within(self, inside: np.ndarray) -> Skeletons:
        """The nodes that are inside, (N,) bool, and the edges between them; skeletons without any node are left out."""
        number = np.cumsum(inside) - 1
        kept, owner = np.unique(self.owner[inside], return_inverse=True)
        both = inside[self.edges].all(axis=1)
        names = tuple(self.names[index] for index in kept)
        edges = number[self.edges[both]]
        return Skeletons(names, owner.astype(np.int64), self.positions[inside], edges, self.lengths[both])

    def voxels(self, voxel_size: Sequence[float], offset: Sequence[float]) -> np.ndarray:
        """(N, 3) int64 the voxel that each node lies in.

        Args:
            voxel_size: nanometres, z, y, x; fractions allowed.
            offset: position of the corner of voxel 0 in nanometres.
        """
        place = (self.positions - np.asarray(offset, np.float64)) / np.asarray(voxel_size, np.float64)
        return np.floor(place + ON_A_FACE).astype(np.int64)

    def in_box(self, box: Box, voxel_size: Sequence[float], offset: Sequence[float]) -> np.ndarray:
        """(N,) bool whether nodes lie in a box of voxels."""
        voxels = self.voxels(voxel_size, offset)
        inside = (voxels >= np.array(box.begin)) & (voxels < np.array(box.end))
        return np.asarray(inside.all(axis=1))


@dataclass(frozen=True)
class RunLengths:
    """What a segmentation traces of skeletons; arrays have one entry for each.

    Attributes:
        names: of the skeletons.
        length: (S,) float64 nanometres of all edges.
        erl: (S,) float64 expected run length of each in nanometres: sum(run^2) / length.
        correct, split, merged, omitted: (S,) int64 edges of each kind.
        segments: (S,) int64 segments that run through it.
        merges: (S,) int64 those of them that are merged with something else.
    """

    names: tuple[str, ...]
    length: np.ndarray
    erl: np.ndarray
    correct: np.ndarray
    split: np.ndarray
    merged: np.ndarray
    omitted: np.ndarray
    segments: np.ndarray
    merges: np.ndarray

    @property
    def expected(self) -> float:
        """The expected run length of all skeletons in nanometres; 0 if they have no length."""
        return _weighted_mean(self.erl, self.length)

    @property
    def highest(self) -> float:
        """The expected run length of a segmentation without an error."""
        return _weighted_mean(self.length, self.length)

    @property
    def normalised(self) -> float:
        """What is reached of the highest, 0 to 1."""
        return self.expected / self.highest if self.highest > 0 else 0.0

    def totals(self) -> dict[str, float]:
        """The numbers of all skeletons together, by name."""
        counts = ("correct", "split", "merged", "omitted")
        return {
            "erl": round(self.expected, 3),
            "normalised_erl": round(self.normalised, 6),
            **{f"{name}_edges": int(getattr(self, name).sum()) for name in counts},
        }


def run_lengths(
    skeletons: Skeletons,
    segments: np.ndarray,
    merge_threshold: int = 1,
    masked: np.ndarray | None = None,
) -> RunLengths:
    """What a segmentation traces of skeletons.

    Args:
        skeletons: S skeletons with N nodes.
        segments: (N,) uint64 the segment of each node; 0 for none.
        merge_threshold: nodes of a skeleton that lie in a segment at least for it to run through the skeleton, if the
            question is whether two skeletons are merged. More than 1 forgives single misplaced nodes.
        masked: ids of segments that are merged with what no skeleton belongs to.
    """
    count = len(skeletons.names)
    owners, ids, nodes, _ = _grouped(skeletons.owner, segments)
    through, times = np.unique(ids[(nodes >= merge_threshold) & (ids != 0)], return_counts=True)
    merged_ids = np.union1d(through[times > 1], np.zeros(0, np.uint64) if masked is None else masked)
    first, second = segments[skeletons.edges[:, 0]], segments[skeletons.edges[:, 1]]
    omitted = (first == 0) | (second == 0)
    split = ~omitted & (first != second)
    merged = ~omitted & ~split & np.isin(first, merged_ids)
    correct = ~(omitted | split | merged)
    edge_owner = skeletons.owner[skeletons.edges[:, 0]]
    run_owner, _, _, run_of = _grouped(edge_owner[correct], first[correct])
    runs = np.bincount(run_of, skeletons.lengths[correct], len(run_owner))
    length = np.bincount(edge_owner, skeletons.lengths, count)
    squares = np.bincount(run_owner, runs**2, count)
    erl = np.divide(squares, length, out=np.zeros(count), where=length > 0)

    def per_skeleton(owner: np.ndarray) -> np.ndarray:
        return np.bincount(owner, minlength=count).astype(np.int64)

    return RunLengths(
        skeletons.names,
        length,
        erl,
        correct=per_skeleton(edge_owner[correct]),
        split=per_skeleton(edge_owner[split]),
        merged=per_skeleton(edge_owner[merged]),
        omitted=per_skeleton(edge_owner[omitted]),
        segments=per_skeleton(owners[ids != 0]),
        merges=per_skeleton(owners[np.isin(ids, merged_ids) & (ids != 0)]),
    )


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
    nodes = [node for neurite in neurites for node in neurite]
    joined = Skeletons.joined([_of_graph(str(index), neurite) for index, neurite in enumerate(neurites)])
    if isinstance(segments, Mapping):
        missing = [node for node in nodes if node not in segments]
        if missing:
            raise ValueError(f"no segment is given for node {missing[0]!r}")
        found = np.array([int(segments[node]) for node in nodes], np.uint64)
    else:
        inside = joined.in_box(Box.of_shape(segments.shape), voxel_size, offset)
        found = np.zeros(len(nodes), np.uint64)
        found[inside] = segments[tuple(joined.voxels(voxel_size, offset)[inside].T)]
    return run_lengths(joined, found, merge_nodes).expected


def _neurites(skeletons: nx.Graph | Iterable[nx.Graph]) -> list[nx.Graph]:
    if isinstance(skeletons, nx.Graph):
        return [skeletons.subgraph(nodes) for nodes in nx.connected_components(skeletons.to_undirected(as_view=True))]
    return list(skeletons)


def _of_graph(name: str, neurite: nx.Graph) -> Skeletons:
    number: dict[Hashable, int] = {node: index for index, node in enumerate(neurite)}
    missing = [node for node in neurite if "position" not in neurite.nodes[node]]
    if missing:
        raise ValueError(f"node {missing[0]!r} has no position")
    positions = np.array([neurite.nodes[node]["position"] for node in neurite], np.float64)
    edges = np.array([(number[u], number[v]) for u, v in neurite.edges], np.int64)
    return Skeletons.of((name,), np.zeros(len(number), np.int64), positions, edges)


def _grouped(owner: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of owner and id that occur: both, how often, and which of them each entry is."""
    order = np.lexsort((ids, owner))
    owner, ids = owner[order], ids[order]
    new = np.ones(len(order), bool)
    new[1:] = (owner[1:] != owner[:-1]) | (ids[1:] != ids[:-1])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new) - 1
    starts = np.flatnonzero(new)
    return owner[starts], ids[starts], np.diff(np.append(starts, len(order))), group


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    total = float(weights.sum())
    return float((values * weights).sum()) / total if total > 0 else 0.0
