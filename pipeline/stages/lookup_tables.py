"""Which segment each fragment belongs to, from the scores of the graph, in memory that does not grow with the volume.

The graph is read once, a million rows at a time: fragments first, then edges, whose ends are joined if they score low
enough (union-find). What has a row per fragment lies on disk (`disk_arrays.py`), and of that no more is in memory than
what the rows in hand touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import disk_arrays
from ..disk_arrays import DiskArray, DiskTable, chunks
from ..engine.blocks.stage import BlockTask, Stage
from ..errors import UserError
from ..evaluation.segment_sizes import SegmentSums
from ..rag import EdgeTable, FragmentIds, RagStore
from ..segmentation.small_segments_loop import join_small
from ..segmentation.union_find import join, settle
from ..small_files import write_npy_rows
from .graph_rows import RowSums, require_sound

SCORE_BINS = 1 << 16
"""Scores from 0 to 1 are told apart so finely when edges are taken in their order, a portion at a time."""


@dataclass(frozen=True)
class JoinLimits:
    """What joins fragments.

    Attributes:
        largest: edges up to this score.
        small: voxels below which a segment is small, and the score up to which it is joined; None: all are alike.
    """

    largest: float
    small: tuple[int, float] | None = None


@dataclass(frozen=True)
class JoinedFragments:
    """All fragments, by id, and what they are joined to.

    Attributes:
        ids: (N,) uint64, ascending.
        sizes: (N,) int64, voxels.
        first: (N,) int64, for each the row of the first fragment of its segment.
        folder: where they lie.
    """

    ids: FragmentIds
    sizes: DiskArray
    first: DiskArray
    folder: Path

    def __len__(self) -> int:
        return len(self.ids.values)

    def release(self) -> None:
        """Let go of the memory."""
        for array in (self.ids, self.sizes, self.first):
            array.release()


OnJoin = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
"""Told of edges that join: the rows of their fragments, u and v, and their mean affinities."""


def join_fragments(
    store: RagStore, graph: BlockTask, scores: Stage, limits: JoinLimits, folder: Path, on_join: OnJoin | None = None
) -> JoinedFragments:
    """Join fragments along edges.

    Args:
        store: the graph store.
        graph, scores: the stages that wrote nodes and edges, and the scores.
        limits: what joins.
        folder: has room for 24 bytes per fragment, and 32 per edge if small segments are not like others.
        on_join: told of all edges that join. Of those that join small segments alone, these are the ones that brought
            two segments together.

    Raises:
        UserError: a row of the graph is lost or has changed, or the disk is full; says what to run.
    """
    sums = RowSums(graph.grid)
    joined = _fragments(store, sums, folder)
    doubtful = _join_close(store, sums, joined, limits, on_join)
    require_sound(store, sums, graph, scores)
    if not joined.ids.are_all or doubtful is None:
        raise UserError(
            "the graph has edges of fragments that it does not have, fragments twice, or not as many edges as it says",
            graph.output,
        )
    _settle(joined)
    if limits.small is not None and doubtful.rows:
        doubtful.join(joined, limits.small[0], on_join)
        _settle(joined)
    return joined


def _fragments(store: RagStore, sums: RowSums, folder: Path) -> JoinedFragments:
    """All fragments, each by itself. Whether they are all is for `require_sound` to say first, which knows more."""
    count = store.counts().nodes
    sizes, first = (DiskArray(folder, count, np.int64) for _ in range(2))
    joined = JoinedFragments(FragmentIds(folder, count), sizes, first, folder)
    for nodes in sums.nodes_through(store.iterate_nodes()):
        here = joined.ids.add(nodes)
        joined.sizes.values[here] = nodes.size[: here.stop - here.start]
        joined.first.values[here] = np.arange(here.start, here.stop)
        joined.release()
    return joined


def _join_close(
    store: RagStore, sums: RowSums, joined: JoinedFragments, limits: JoinLimits, on_join: OnJoin | None
) -> DoubtfulEdges | None:
    """Join fragments along edges of low scores; those that join small segments alone, or None if an edge ends nowhere,
    or there are not as many as the store says.
    """
    lenient, count = limits.small[1] if limits.small is not None else -1.0, store.counts().edges
    doubtful = DoubtfulEdges(joined.folder, count if lenient > limits.largest else 0)
    all_known, seen = True, 0
    for edges in sums.edges_through(store.iterate_edges()):
        close = edges.select(edges.score <= max(limits.largest, lenient))
        (u_known, u), (v_known, v) = joined.ids.rows_of(close.u), joined.ids.rows_of(close.v)
        known, seen = u_known & v_known, seen + len(edges)
        all_known &= bool(known.all())
        surely = known & (close.score <= limits.largest)
        join(joined.first.values, u[surely], v[surely])
        if on_join is not None:
            on_join(u[surely], v[surely], close.select(surely).mean_affinity)
        if lenient > limits.largest:
            doubtful.add(u[known & ~surely], v[known & ~surely], close.select(known & ~surely))
        joined.release()
    return doubtful if all_known and seen == count else None


def _settle(joined: JoinedFragments) -> None:
    for part in chunks(len(joined)):
        settle(joined.first.values, part.start, part.stop)
        joined.release()


class DoubtfulEdges:
    """Edges that join small segments alone, on the disk until all others have joined.

    Args:
        folder: where they lie.
        rows: how many at most, those that come after are left out; `rows` says how many there are.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self._table = DiskTable(folder, rows, np.int64, np.int64, np.float64, np.float64)

    @property
    def rows(self) -> int:
        """How many there are."""
        return self._table.rows

    def add(self, u: np.ndarray, v: np.ndarray, edges: EdgeTable) -> None:
        """Add edges between the fragments in the rows u and v."""
        self._table.add(u, v, edges.score, edges.mean_affinity)

    def join(self, joined: JoinedFragments, below: int, on_join: OnJoin | None = None) -> None:
        """Join segments of fewer voxels along these edges, in the order that `segmentation/small_segments.py` gives."""
        voxels = DiskArray(joined.folder, len(joined), np.int64)
        for part in chunks(len(joined)):
            np.add.at(voxels.values, joined.first.values[part], joined.sizes.values[part])
            voxels.release()
            joined.release()
        for u, v, scores, affinities in self._by_score():
            pairs = np.stack([np.minimum(u, v), np.maximum(u, v)], axis=1)
            order = np.lexsort((pairs[:, 1], pairs[:, 0], -affinities, scores))
            joins = order[join_small(joined.first.values, voxels.values, pairs[order], below)]
            if on_join is not None:
                on_join(u[joins], v[joins], affinities[joins])
            voxels.release()
            joined.release()

    def _by_score(self) -> Iterator[list[np.ndarray]]:
        """All edges, portions of higher scores later."""
        scores = self._table.columns[2]
        counts = np.zeros(SCORE_BINS + 1, np.int64)
        for part in self._table.portions():
            np.add.at(counts, _bin_of(scores[part]), 1)
        first, total = 0, np.cumsum(counts)
        while first <= SCORE_BINS:
            before = total[first - 1] if first else 0
            end = max(first + 1, int(np.searchsorted(total, before + disk_arrays.CHUNK, side="right")))
            rows = [
                part.start + np.flatnonzero((_bin_of(scores[part]) >= first) & (_bin_of(scores[part]) < end))
                for part in self._table.portions()
            ]
            found = np.concatenate(rows)
            if len(found):
                yield [np.array(column[found]) for column in self._table.columns]
            first = end


def _bin_of(scores: np.ndarray) -> np.ndarray:
    return np.asarray((scores * SCORE_BINS).astype(np.int64))


def sum_segments(joined: JoinedFragments, minimum_size: int, folder: Path) -> SegmentSums:
    """How large the segments are that fragments are joined to; those with fewer voxels than `minimum_size` are dropped.

    Args:
        joined: all fragments.
        minimum_size: voxels.
        folder: has room for 16 bytes per fragment.
    """
    sums = SegmentSums(folder, len(joined))
    for part in chunks(len(joined)):
        sums.add(joined.first.values[part], joined.sizes.values[part])
        joined.release()
    sums.drop_small(minimum_size)
    return sums


def write_lookup_table(joined: JoinedFragments, sums: SegmentSums, path: Path) -> None:
    """Write a lookup table (N, 2) uint64, fragment id and segment id, sorted by fragment id, in one step.

    A segment has the id of its first fragment; those that were dropped are 0.

    Args:
        joined: all fragments.
        sums: of their segments.
        path: the file.

    Raises:
        UserError: the folder cannot be written.
    """
    ids, first = joined.ids.values, joined.first.values

    def rows() -> Iterator[np.ndarray]:
        for part in chunks(len(joined)):
            segment = first[part]
            yield np.stack([ids[part], np.where(sums.is_kept(segment), ids[segment], np.uint64(0))], axis=1)
            joined.release()
            sums.release()

    write_npy_rows(path, (len(joined), 2), np.dtype(np.uint64), rows())
