"""Stage 04, second part: a merge score for every edge of the graph.

`global` computes exact average linkage on the whole graph, which needs no blocks and does not depend on them. `waterz`
agglomerates each block with its context and scores the edges that the block owns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ..command_names import SCRIPTS
from ..config import NEAREST_NEIGHBOURS
from ..engine.blocks.grid import Block, BlockGrid
from ..engine.blocks.stage import BlockFunction, BlockTask, DriverStep, Stage
from ..rag import EdgeTable, rag_is_missing
from ..run import Run
from ..segmentation import merge_scores, waterz_edge_scores
from .fragments import FragmentsTask
from .graph_rows import read_graph, score_checksums, score_records
from .predict import PredictTask
from .region_graph import CONTACT_CONTEXT, RagTask, graph_note, open_graph

NAME = "agglomerate"


@dataclass(frozen=True)
class _Agglomeration(Stage):
    """What both ways have in common: the scores lie in the graph store."""

    stage = NAME
    version = 1
    script = SCRIPTS["agglomerate"]

    @property
    def output(self) -> str:
        return self.run.config.rag.shown

    @cached_property
    def upstream(self) -> tuple[Stage, ...]:
        return (RagTask(self.run),)

    def stored_key(self) -> str | None:
        return graph_note(self.run, NAME)

    def is_missing(self) -> bool:
        return rag_is_missing(self.run.config.rag, self.run.directory)

    def prepare(self) -> None:
        with open_graph(self.run) as store:
            store.clear_scores()
            store.set_note(NAME, self.key)

    def drop(self) -> None:
        with open_graph(self.run) as store:
            store.set_note(NAME, None)
            store.clear_scores()


@dataclass(frozen=True)
class GlobalAgglomeration(_Agglomeration, DriverStep):
    """Average linkage on the whole graph. Memory: about 200 bytes per edge."""

    @override
    def settings(self) -> dict[str, Any]:
        return {"agglomerate.method": "global"}

    @override
    def execute(self) -> None:
        checksums = np.zeros(len(self.grid), dtype=np.uint64)
        with open_graph(self.run) as store:
            _, edges = read_graph(store, RagTask(self.run))
            scored = replace(edges, score=merge_scores(edges.pairs, edges.mean_affinity, edges.count))
            for block, owned in edges_by_owner(scored, self.grid):
                store.write_scores(block, owned)
                checksums[block] = score_checksums(owned).sum()
        score_records(self).write_all(checksums)


def edges_by_owner(edges: EdgeTable, grid: BlockGrid) -> Iterator[tuple[int, EdgeTable]]:
    """Edges grouped by the block that owns them.

    That is the block of the larger fragment, v: fragments do not cross blocks, and a contact is counted on its high
    side, so this block holds the whole edge.
    """
    owner = ((edges.v - np.uint64(1)) // np.uint64(grid.voxels_per_block)).astype(np.int64)
    order = np.argsort(owner, kind="stable")
    blocks, starts = np.unique(owner[order], return_index=True)
    for block, rows in zip(blocks.tolist(), np.split(order, starts[1:]), strict=False):
        yield block, edges.select(rows)


@dataclass(frozen=True)
class WaterzAgglomeration(_Agglomeration, BlockTask):
    """waterz on each block with its context."""

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        rag = RagTask(self.run)
        return (rag, *rag.upstream)

    @property
    @override
    def context(self) -> Coordinate:
        wanted = self.run.config.agglomerate.context
        return Coordinate(max(own, needed) for own, needed in zip(wanted, CONTACT_CONTEXT, strict=True))

    @override
    def settings(self) -> dict[str, Any]:
        config = self.run.config.agglomerate
        return {
            "agglomerate.method": "waterz",
            "agglomerate.context": list(config.context),
            "agglomerate.merge_function": config.merge_function,
        }

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        config = self.run.config.agglomerate
        affinities, fragments = PredictTask(self.run).open_complete(), FragmentsTask(self.run).open_complete()
        with open_graph(self.run) as store:

            def process_block(block: Block) -> None:
                around = self.grid.with_context(block.box, self.context, self.context)
                seen = affinities.read(around)[: len(NEAREST_NEIGHBOURS)]
                pairs, scores = waterz_edge_scores(seen, fragments.read(around), config.merge_function)
                first_id, end_id = self.grid.fragment_ids(block)
                owned = (pairs[:, 1] >= np.uint64(first_id)) & (pairs[:, 1] < np.uint64(end_id))
                edges = scored_edges(pairs[owned], scores[owned])
                store.write_scores(block.index, edges)
                self.records.write(block.index, int(score_checksums(edges).sum()), len(edges))

            yield process_block


def scored_edges(pairs: np.ndarray, scores: np.ndarray) -> EdgeTable:
    """Merge scores (E,) of pairs (E, 2), as a table without statistics."""
    zeros = np.zeros(len(pairs))
    return replace(EdgeTable.of(pairs, zeros, zeros), score=scores)


def agglomeration(run: Run) -> Stage:
    """The configured way."""
    return {"global": GlobalAgglomeration, "waterz": WaterzAgglomeration}[run.config.agglomerate.method](run)


def readers_of_affinities(run: Run) -> tuple[BlockTask, ...]:
    """The block tasks that read affinities as they lie on the disk."""
    tasks = (FragmentsTask(run), RagTask(run), agglomeration(run))
    reading = [task for task in tasks if any(stage.stage == PredictTask.stage for stage in task.reads)]
    return tuple(task for task in reading if isinstance(task, BlockTask))
