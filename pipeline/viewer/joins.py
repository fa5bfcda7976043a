"""Segments at any threshold without a volume: which fragments of a run are one, as neuroglancer's equivalences.

The set of a segment is called after its smallest id, which is the id that the files have. A browser is told
about all fragments if they are few; else about those of the blocks in view: the ids of a block are one range.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..engine.blocks.grid import BlockGrid
from ..evaluation.scored_graph import scored_edges, small_segments
from ..rag import open_rag
from ..run import Run
from ..segmentation import SmallSegments, drop_small, join_pairs, joining_edges, unique_ids
from ..volumes import Box

MOST_EDGES = 50_000_000
"""Edges of a graph whose thresholds are changed by a key: they are held in memory, about 100 bytes each."""
MOST_JOINS = 20_000
"""Fragments that are told to the browser at once; it sends all of them back at every movement."""


@dataclass(frozen=True)
class Graph:
    """The scored graph of a run.

    Attributes:
        ids: (N,) fragments, sorted.
        pairs: (E, 2) int32, edges as places in `ids`.
        scores: (E,) merge scores.
        sizes: (N,) voxels of the fragments; None if segments of any size count.
        small: what more joins small segments.
    """

    ids: np.ndarray
    pairs: np.ndarray
    scores: np.ndarray
    sizes: np.ndarray | None
    small: SmallSegments | None = None


class Joins:
    """Which fragments are one, at any threshold; the graph is read when it is first asked.

    Args:
        run: agglomerated.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.grid = BlockGrid.of_run(run)

    @cached_property
    def graph(self) -> Graph:
        """The graph in memory.

        Raises:
            UserError: it cannot be read, or has no merge scores.
        """
        edges, nodes = scored_edges(self._run), None
        if self._run.config.segment.minimum_size > 0:
            with open_rag(self._run.config.rag, self._run.directory) as store:
                nodes = store.read_nodes()
        ids = unique_ids(None if nodes is None else nodes.id, edges.pairs)
        pairs = np.searchsorted(ids, edges.pairs).astype(np.int32)
        small = small_segments(self._run, edges)
        return Graph(ids, pairs, edges.score, None if nodes is None else nodes.size, small)

    def table(self, threshold: float) -> np.ndarray:
        """(N, 2) uint64, fragments and their segments, sorted: those alone that are called otherwise as segments.

        Args:
            threshold: edges up to this score are merged.

        Raises:
            UserError: the graph cannot be read.
        """
        config, graph = self._run.config, self.graph
        limit = min(threshold, config.agglomerate.maximum_score)
        joining = joining_edges(graph.ids, graph.pairs, graph.scores, limit, graph.small)
        lut = join_pairs(graph.ids, graph.pairs[joining])
        if graph.sizes is not None:
            lut = drop_small(lut, graph.ids, graph.sizes, config.segment.minimum_size)
        changed: np.ndarray = lut[lut[:, 0] != lut[:, 1]]
        return changed

    def seen(self, table: np.ndarray, around: np.ndarray, reach: float) -> np.ndarray:
        """The rows of a table that a view needs: all if they are few, else those of the nearest blocks in its planes.

        Args:
            table: see `table`.
            around: the middle of the view, z, y, x, in voxels of the region.
            reach: nanometres that are seen to each side.
        """
        if len(table) <= MOST_JOINS:
            return table
        parts, total = [], 0
        for begin, end in self._ids_near(around, reach):
            low, high = np.searchsorted(table[:, 0], [begin, end])
            total += int(high - low)
            if total > MOST_JOINS:
                break
            parts.append(table[low:high])
        return np.concatenate([table[:0], *parts])

    def _ids_near(self, around: np.ndarray, reach: float) -> Iterable[tuple[int, int]]:
        """First and last fragment ids of the blocks in the three planes through a point, the nearest blocks first."""
        size = np.asarray(self.grid.voxel_size)
        steps = np.ceil(reach / size).astype(int)
        found = {}
        for normal in range(3):
            half = np.where(np.arange(3) == normal, 0, steps)
            low, high = np.floor(around).astype(int) - half, np.floor(around).astype(int) + half + 1
            for block in self.grid.blocks_in(Box(low, high).intersect(self.grid.box)):
                middle = (np.asarray(block.box.begin) + np.asarray(block.box.end)) / 2
                found[block.index] = (float((((middle - around) * size) ** 2).sum()), self.grid.fragment_ids(block))
        return [ids for _, ids in sorted(found.values())]


def equivalences(rows: np.ndarray) -> list[list[str]]:
    """Rows of a lookup table as neuroglancer reads them: the segment, and its fragments."""
    order = np.argsort(rows[:, 1], kind="stable")
    fragments, segments = rows[order].T
    starts = np.flatnonzero(np.concatenate([[True], segments[1:] != segments[:-1]])[: len(segments)])
    ends = [*starts[1:].tolist(), len(segments)]
    names = fragments.astype(str).tolist()
    return [
        [str(segment), *names[begin:end]]
        for segment, begin, end in zip(segments[starts].tolist(), starts.tolist(), ends, strict=False)
    ]
