"""The graph of a run with its merge scores, for those who score: as a whole, or if it is large, what decides for some
fragments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..command_names import name_of
from ..errors import UserError
from ..rag import EdgeTable, open_rag
from ..run import Run
from ..segmentation import SmallSegments
from ..units import THRESHOLD_DECIMALS
from .certainty import stored_certainty
from .joined_fragments import edges_among

EDGES_IN_MEMORY = 5_000_000
"""A larger graph is not read as a whole for fragments of a region or of skeletons: that takes 140 bytes per edge."""


@dataclass(frozen=True)
class ScoredGraph:
    """The graph of a run, read when it is first asked.

    Attributes:
        run: agglomerated.
    """

    run: Run

    @cached_property
    def whole(self) -> EdgeTable:
        """All of it; see `scored_edges`."""
        return scored_edges(self.run)

    @cached_property
    def small(self) -> SmallSegments | None:
        """What more joins small segments along its edges, if the config asks for it."""
        return None if self.run.config.small_segments is None else small_segments(self.run, self.whole)

    @cached_property
    def _is_large(self) -> bool:
        with open_rag(self.run.config.rag, self.run.directory) as store:
            counts = store.counts()
        return counts.edges > EDGES_IN_MEMORY and counts.scored_edges > 0 and self.run.config.small_segments is None

    def among(self, fragments: Callable[[], np.ndarray]) -> EdgeTable:
        """Edges, sorted by u, that join some fragments as the whole graph does, at the thresholds of the sweep and that
        of the certainty: the whole graph, unless it is large. Small segments may be joined along the whole graph alone.

        Args:
            fragments: gives (M,) uint64 ids, sorted, each once; asked only if the graph is large.

        Raises:
            UserError: the merge scores are missing.
        """
        if not self._is_large:
            return self.whole
        config, certainty = self.run.config, stored_certainty(self.run)
        thresholds = [*swept(self.run), *([] if certainty is None else [certainty.threshold])]
        limits = [min(threshold, config.agglomerate.maximum_score) for threshold in thresholds]
        ids = fragments()
        with open_rag(config.rag, self.run.directory) as store:
            return edges_among(store, ids, limits, self.run.luts)


def swept(run: Run) -> list[float]:
    """The thresholds of the sweep, in order; they count to as many decimals as their names have."""
    return sorted({round(threshold, THRESHOLD_DECIMALS) for threshold in run.config.evaluate.sweep})


def scored_edges(run: Run) -> EdgeTable:
    """The whole graph of a run with merge scores, sorted by u.

    Raises:
        UserError: the merge scores are missing.
    """
    with open_rag(run.config.rag, run.directory) as store:
        edges = EdgeTable.concatenate(store.iterate_edges()).summed()
    if len(edges) and np.isnan(edges.score).all():
        raise UserError(f"the graph has no merge scores; run {name_of('04_agglomerate.py')} first", "agglomerate")
    return edges


def small_segments(run: Run, edges: EdgeTable) -> SmallSegments | None:
    """What more joins small segments along the edges of the whole graph, if the config asks for it."""
    if run.config.small_segments is None:
        return None
    with open_rag(run.config.rag, run.directory) as store:
        nodes = store.read_nodes()
    return SmallSegments.of(run.config.small_segments, nodes.id, nodes.size, edges.mean_affinity)
