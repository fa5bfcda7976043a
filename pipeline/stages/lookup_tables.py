"""Which segment each fragment belongs to, from the scores of the graph, in memory that does not grow with the volume.

The graph is read once, a million rows at a time: fragments first, then edges, whose ends are joined if they score low
enough (union-find). What has a row per fragment lies on disk (`disk_arrays.py`), and of that no more is in memory than
what the rows in hand touch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..disk_arrays import DiskArray, chunks
from ..engine.blocks.stage import BlockTask, Stage
from ..errors import UserError
from ..evaluation.segment_sizes import SegmentSums
from ..rag import RagStore
from ..segmentation.union_find import join, settle
from ..small_files import write_npy_rows
from .graph_rows import RowSums, require_sound


@dataclass(frozen=True)
class JoinedFragments:
    """All fragments, by id, and what they are joined to.

    Attributes:
        ids: (N,) uint64, ascending.
        sizes: (N,) int64, voxels.
        first: (N,) int64, for each the row of the first fragment of its segment.
    """

    ids: DiskArray
    sizes: DiskArray
    first: DiskArray

    def __len__(self) -> int:
        return len(self.ids.values)

    def release(self) -> None:
        """Let go of the memory."""
        for array in (self.ids, self.sizes, self.first):
            array.release()


def join_fragments(store: RagStore, graph: BlockTask, scores: Stage, largest: float, folder: Path) -> JoinedFragments:
    """Join fragments along all edges with a score of at most `largest`.

    Args:
        store: the graph store.
        graph, scores: the stages that wrote nodes and edges, and the scores.
        largest: score that joins.
        folder: has room for 24 bytes per fragment.

    Raises:
        UserError: a row of the graph is lost or has changed, or the disk is full; says what to run.
    """
    sums, rows = RowSums(graph.grid), store.counts().nodes
    joined = JoinedFragments(*(DiskArray(folder, rows, dtype) for dtype in (np.uint64, np.int64, np.int64)))
    ids, first, end, fits = joined.ids.values, joined.first.values, 0, True
    for nodes in sums.nodes_through(store.iterate_nodes()):
        fits &= len(nodes) <= rows - end
        nodes = nodes.select(slice(0, rows - end))
        here = slice(end, end + len(nodes))
        ids[here], joined.sizes.values[here], first[here] = nodes.id, nodes.size, np.arange(here.start, here.stop)
        fits &= bool((np.diff(ids[max(end - 1, 0) : here.stop].astype(np.int64)) > 0).all())
        end = here.stop
        joined.release()
    fits &= end == rows
    for edges in sums.edges_through(store.iterate_edges()):
        close = edges.select(edges.score <= largest)
        u, v = (np.minimum(np.searchsorted(ids, end_ids), max(rows - 1, 0)) for end_ids in (close.u, close.v))
        known = (ids[u] == close.u) & (ids[v] == close.v) if rows else np.zeros(len(close), bool)
        fits &= bool(known.all())
        join(first, u[known], v[known])
        joined.release()
    require_sound(store, sums, graph, scores)
    if not fits:
        raise UserError("the graph has edges between fragments that it does not have, or fragments twice", graph.output)
    for part in chunks(rows):
        settle(first, part.start, part.stop)
        joined.release()
    return joined


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
