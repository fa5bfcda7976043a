"""Linkage of a region whose edges do not fit into memory: the same result as `link_region`, from edges on the disk.

1. Clusters that are not connected by edges of at least some mean affinity are not merged before everything above it is.
   So the edges that come first, down to that mean, are a *window*: each connected component of theirs, with all edges
   inside it, is linked by itself. The window is as wide as the memory allows for the largest component.
2. What was merged becomes one; edges between the same two clusters become one, in portions by a hash of the pair.
3. The next window begins where that one ended, until all edges that are left fit.

In memory are a portion of the edges and what there is per cluster (`BYTES_PER_CLUSTER`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..disk_arrays import DiskArray, chunks
from ..errors import UserError
from ..segmentation.cluster_edges import UNIT, ClusterEdges
from ..segmentation.linkage import SCORE_DECIMALS, scores_of_means
from ..segmentation.regional_linkage import NEVER, LinkedRegion
from .edges_on_disk import CLUSTER_EDGES, COLUMNS, EdgesOnDisk, united

BYTES_PER_EDGE = 260
"""Memory per edge that is in memory: 130 while it is linked, the rest for rows that are read and written."""
BYTES_PER_CLUSTER = 60
"""Memory per cluster of the region, for as long as it is linked."""
MARGIN = 2.0**-48
"""Means that differ by less may be in another order as fractions."""
NARROWEST = 2.0**-40
"""Windows are not made narrower than this."""


@dataclass
class _Clusters:
    """What is known of the clusters.

    Attributes:
        ids: (N,) uint64, sorted.
        now: (N,) int32, the cluster that each has become a part of: the smallest.
        is_open: (N,) bool, of those.
    """

    ids: np.ndarray
    now: np.ndarray
    is_open: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class _FirstEdges:
    """What became of the edges that went in: those of the region, then those that are seen.

    Attributes:
        edge_of: (E,) int64, the row of the table in hand that each is a part of; -1 if it has a score.
        score: (E,) float64; NaN of the others.
    """

    edge_of: DiskArray
    score: DiskArray

    def follow(self, merged: DiskArray, part_of: DiskArray) -> None:
        """Take the scores of rows that were merged, and find the others in the table that the rows are united to.

        Args:
            merged: (P,) float64, scores of the rows; NaN if they were not merged.
            part_of: (P,) int64, what they have become a part of; -1 if they were merged.
        """
        for part in chunks(len(self.edge_of.values)):
            there = part.start + np.flatnonzero(self.edge_of.values[part] >= 0)
            edge = self.edge_of.values[there]
            self.score.values[there] = merged.values[edge]
            self.edge_of.values[there] = part_of.values[edge]
            for array in (self.edge_of, self.score, merged, part_of):
                array.release()


@dataclass(frozen=True)
class _Window:
    """What is linked before anything else.

    Attributes:
        below: means down to this.
        component: (N,) int32, of each cluster.
        batch: (N,) int32, of each component: those of a batch are linked together; -1 if there is nothing to link.
    """

    below: float
    component: np.ndarray
    batch: np.ndarray

    def rows(self, table: EdgesOnDisk, clusters: _Clusters) -> Iterator[np.ndarray]:
        """The rows of each batch."""
        for number in range(int(self.batch.max(initial=-1)) + 1):
            found = []
            for part, columns in table.portions():
                inside = self.component[columns["a"]] == self.component[columns["b"]]
                inside &= self.batch[self.component[columns["a"]]] == number
                found.append(part.start + np.flatnonzero(inside & ~_is_settled(columns, clusters)))
            yield np.concatenate(found)


def link_region_on_disk(
    edges: ClusterEdges, leaves: Callable[[np.ndarray], np.ndarray], seen: ClusterEdges, maximum_score: float,
    memory: float, folder: Path,
) -> LinkedRegion:  # fmt: skip
    """`link_region`, in portions.

    Args:
        edges, seen, maximum_score: as for `link_region`; the columns of `edges` may lie on the disk.
        leaves: tells which clusters (N,) lie outside.
        memory: bytes that may be used.
        folder: has room for about 250 bytes per edge.

    Raises:
        UserError: the clusters, or edges of the same score that hang together, take more memory.
        OverflowError: as for `link_region`.
    """
    lowest = 1 - maximum_score - 10.0**-SCORE_DECIMALS if maximum_score < 1 else -1.0
    ids = _ids_of(edges, seen)
    clusters = _Clusters(ids, np.arange(len(ids), dtype=np.int32), leaves(ids))
    room = int((memory - BYTES_PER_CLUSTER * len(ids)) / BYTES_PER_EDGE)
    if room < 2:
        needed = f"{len(ids)} clusters take {BYTES_PER_CLUSTER * len(ids) / 1e9:.3g} GB and not {memory / 1e9:.3g}"
        raise UserError(f"{needed}; allow more", "agglomerate.memory")
    table, edge_of = united(_numbered(edges, seen, ids, folder), room, folder)
    first = _FirstEdges(edge_of, _no_scores(folder, len(edges) + len(seen)))
    below = 2.0
    while below > lowest:
        window = _next_window(table, clusters, lowest, room)
        below = window.below
        merged = _no_scores(folder, table.rows)
        became = np.arange(len(clusters), dtype=np.int32)
        for rows in window.rows(table, clusters):
            merged.values[rows] = _link_batch(table.read(rows), clusters, became, below)
        clusters.now = became[clusters.now]
        table, part_of = united(_contracted(table, merged, became, folder), room, folder)
        first.follow(merged, part_of)
    goes_up = _what_goes_up(table, clusters, first.edge_of.values[len(edges) :], folder)
    rising, target = united(_of_the_region(edges, table, goes_up, first, folder), room, folder)
    called = clusters.ids[clusters.now[np.searchsorted(clusters.ids, seen.u)]]
    return LinkedRegion(
        _named(rising, clusters, leaves, folder),
        ClusterEdges(called, *seen.columns()[1:]),
        target.values,
        first.score.values[: len(edges)],
    )


def _no_scores(folder: Path, rows: int) -> DiskArray:
    """(rows,) float64 on the disk, NaN throughout."""
    scores = DiskArray(folder, rows, np.float64)
    for part in chunks(rows):
        scores.values[part] = np.nan
        scores.release()
    return scores


def _ids_of(edges: ClusterEdges, seen: ClusterEdges) -> np.ndarray:
    """(N,) uint64, the clusters, sorted; new ones are sorted in when they are as many as were there before."""
    ids, more, waiting = np.unique(np.concatenate([seen.u, seen.v])), list[np.ndarray](), 0
    for part in chunks(len(edges)):
        more.append(np.unique(np.concatenate([edges.u[part], edges.v[part]])))
        waiting += len(more[-1])
        if waiting >= len(ids):
            ids, more, waiting = np.unique(np.concatenate([ids, *more])), [], 0
    return np.unique(np.concatenate([ids, *more]))


def _numbered(edges: ClusterEdges, seen: ClusterEdges, ids: np.ndarray, folder: Path) -> EdgesOnDisk:
    """All edges, with the numbers of clusters, the smaller one first."""
    table, begin = EdgesOnDisk(folder, len(edges) + len(seen)), 0
    for source in (edges, seen):
        for part in chunks(len(source)):
            rows = source.select(part)
            first, second = (np.searchsorted(ids, end).astype(np.int32) for end in (rows.u, rows.v))
            columns = dict(zip(COLUMNS, [np.minimum(first, second), np.maximum(first, second)], strict=False))
            columns |= {name: getattr(rows, name) for name in list(COLUMNS)[2:]}
            table.write(slice(begin, begin + len(rows)), columns)
            begin += len(rows)
    return table


def _is_settled(columns: dict[str, np.ndarray], clusters: _Clusters) -> np.ndarray:
    """Edges between clusters that have to wait."""
    return np.asarray(clusters.is_open[columns["a"]] & clusters.is_open[columns["b"]])


def _next_window(table: EdgesOnDisk, clusters: _Clusters, lowest: float, room: int) -> _Window:
    """The first window that is found by halving of which every component has at most half as many edges as there is
    room for; a batch then has no more than that. What is left is the last one, if it is like that.
    """
    low, high, chosen = max(lowest, 0.0), 1 + 2 * MARGIN, lowest
    while True:
        component, sizes, links = _components(table, clusters, chosen)
        largest = int(sizes.max(initial=0))
        if largest <= room // 2 and (links or chosen == lowest):
            break
        if high - low < NARROWEST:
            needed = f"{largest} edges of about the same score hang together, which take"
            gigabytes = 2 * largest * BYTES_PER_EDGE / 1e9
            raise UserError(f"{needed} {gigabytes:.3g} GB beside the clusters; allow more", "agglomerate.memory")
        low, high = (max(chosen, low), high) if links else (low, chosen)
        chosen = (low + high) / 2
    there = np.flatnonzero(sizes)
    batch = np.full(len(clusters), -1, np.int32)
    before = np.cumsum(sizes[there]) - sizes[there]
    batch[there] = before // max(1, room // 2)
    return _Window(chosen, component, batch)


def _components(table: EdgesOnDisk, clusters: _Clusters, below: float) -> tuple[np.ndarray, np.ndarray, bool]:
    """Components (N,) int32 of clusters along edges of at least a mean, the edges (N,) int64 inside each, by its first
    cluster, and whether there is an edge to be linked.
    """
    from ..segmentation.union_find import join, settle  # compiled

    component, sizes, linked = np.arange(len(clusters), dtype=np.int32), np.zeros(len(clusters), np.int64), False
    for _, columns in table.portions():
        means = columns["sums"] * UNIT / columns["counts"]
        waits = _is_settled(columns, clusters)
        near = (means >= below - MARGIN) & ~waits
        linked |= bool(((means >= below) & ~waits).any())
        join(component, columns["a"][near], columns["b"][near])
    settle(component, 0, len(component))
    for _, columns in table.portions():
        inside = (component[columns["a"]] == component[columns["b"]]) & ~_is_settled(columns, clusters)
        np.add.at(sizes, component[columns["a"][inside]], 1)
    return component, sizes, linked


def _link_batch(columns: dict[str, np.ndarray], clusters: _Clusters, became: np.ndarray, below: float) -> np.ndarray:
    """Link some edges down to a mean.

    Args:
        columns: the edges.
        clusters: which of them are open is noted here,
        became: (N,) and here, what they were merged into.
        below: the mean.

    Returns:
        (E,) float64, scores; NaN of edges that were not merged.
    """
    from ..segmentation.linkage_loop import merge_nearest  # compiled

    order = np.lexsort((columns["first_v"], columns["first_u"]))
    numbers, ends = np.unique(np.stack([columns["a"], columns["b"]], axis=1)[order], return_inverse=True)
    between = ends.reshape(-1, 2).astype(np.int32)
    is_open = clusters.is_open[numbers]
    sums, counts = columns["sums"][order], columns["counts"][order]
    into, means, cluster, fits = merge_nearest(between.ravel(), sums, counts, UNIT, is_open, below)
    if not fits:
        raise OverflowError("two clusters have more contacts with each other than can be counted (2**37)")
    became[numbers] = numbers[cluster]
    left = between[(into == np.arange(len(into))) & np.isnan(means)].ravel()
    clusters.is_open[numbers[cluster[left[is_open[left]]]]] = True
    scores = np.empty(len(order))
    scores[order] = scores_of_means(means[into])
    return scores


def _contracted(table: EdgesOnDisk, merged: DiskArray, became: np.ndarray, folder: Path) -> EdgesOnDisk:
    """The edges between what was merged; several may join the same two clusters. Those that were merged are none.

    Args:
        table: the edges before.
        merged: (P,) and their scores; NaN if they were not merged.
        became: (N,) what clusters were merged into.
        folder: in which they come to lie.
    """
    left = EdgesOnDisk(folder, table.rows)
    for part, columns in table.portions():
        first, second = became[columns["a"]], became[columns["b"]]
        columns["a"] = np.where(np.isnan(merged.values[part]), np.minimum(first, second), np.int32(-1))
        columns["b"] = np.maximum(first, second)
        left.write(part, columns)
    return left


def _what_goes_up(table: EdgesOnDisk, clusters: _Clusters, seen_as: np.ndarray, folder: Path) -> DiskArray:
    """(P,) bool, rows that a larger region has to merge: those between open clusters, and those that seen edges are a
    part of (`seen_as`, (S,); -1 if they were merged), without which means would not be those of the whole graph.
    """
    goes_up = DiskArray(folder, table.rows, np.bool_)
    for part, columns in table.portions():
        goes_up.values[part] = _is_settled(columns, clusters)
    goes_up.values[seen_as[seen_as >= 0]] = True
    return goes_up


def _of_the_region(
    edges: ClusterEdges, table: EdgesOnDisk, goes_up: DiskArray, first: _FirstEdges, folder: Path
) -> EdgesOnDisk:
    """The edges of the region itself, between the clusters that they join now. Those that go up no more are none, and
    get the score `NEVER` unless they have one.
    """
    own = EdgesOnDisk(folder, len(edges))
    for part in chunks(len(edges)):
        edge = first.edge_of.values[part]
        up = (edge >= 0) & goes_up.values[np.maximum(edge, 0)] if table.rows else np.zeros(len(edge), bool)
        first.score.values[part] = np.where((edge >= 0) & ~up, NEVER, first.score.values[part])
        columns = table.read(np.maximum(edge, 0)) if table.rows else own.read(part)
        columns["a"] = np.where(up, columns["a"], np.int32(-1))
        columns |= {name: getattr(edges, name)[part] for name in list(COLUMNS)[2:]}
        own.write(part, columns)
        for array in (first.edge_of, first.score, goes_up):
            array.release()
        table.release()
    return own


def _named(
    table: EdgesOnDisk, clusters: _Clusters, leaves: Callable[[np.ndarray], np.ndarray], folder: Path
) -> ClusterEdges:
    """Edges with the ids of their clusters, the one outside first; the columns lie on the disk."""
    named = [DiskArray(folder, table.rows, dtype) for dtype in CLUSTER_EDGES]
    for part, columns in table.portions():
        one, other = clusters.ids[columns["a"]], clusters.ids[columns["b"]]
        other_leaves = leaves(other)
        named[0].values[part] = np.where(other_leaves, other, one)
        named[1].values[part] = np.where(other_leaves, one, other)
        for array, name in zip(named[2:], list(COLUMNS)[2:], strict=True):
            array.values[part] = columns[name]
            array.release()
    return ClusterEdges(*(array.values for array in named))
