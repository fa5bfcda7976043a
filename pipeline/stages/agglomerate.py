"""Stage 04, second part: a merge score for every edge of the graph.

`global` computes exact average linkage on the whole graph, which does not depend on blocks: a small graph of one region
in memory, others region by region (`linkage.py`), with the same result. `waterz` agglomerates each block with its
context and scores the edges that the block owns. Edges that classes forbid (`fragment_classes.py`) are no edges for
either; their score is `FORBIDDEN`.
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
from ..config import NEAREST_NEIGHBOURS, config_hash
from ..engine.blocks.grid import Block, BlockGrid
from ..engine.blocks.stage import BlockFunction, BlockTask, DriverStep, Stage
from ..errors import UserError
from ..rag import EdgeTable, rag_is_missing
from ..run import Run
from ..segmentation import FORBIDDEN, waterz_edge_scores
from ..segmentation.cluster_edges import ClusterEdges
from ..segmentation.regional_linkage import link_region
from .fragment_classes import ReadsEdges, class_stages
from .fragments import FragmentsTask
from .graph_rows import read_graph, score_checksums, score_records
from .linkage import TOGETHER, LinkageTask, levels_of
from .merge_scores import MergeScoresTask, linkage_stages, read_scores
from .predict import PredictTask
from .region_graph import CONTACT_CONTEXT, RagTask, graph_note, open_graph

NAME = "agglomerate"
DRIVER_VOXELS = 2**28
"""A volume of one region is linked by the driver if it has no more voxels: a gigabyte if its graph is dense."""


@dataclass(frozen=True)
class _Agglomeration(Stage, ReadsEdges):
    """What both ways have in common: the scores lie in the graph store."""

    stage = NAME
    version = 1
    script = SCRIPTS["agglomerate"]

    @property
    def output(self) -> str:
        return self.run.config.rag.shown

    @cached_property
    def upstream(self) -> tuple[Stage, ...]:
        return self.edge_stages

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
class _Global(_Agglomeration):
    """Average linkage on the whole graph; how it is computed is no part of the key."""

    version = 2

    @override
    def settings(self) -> dict[str, Any]:
        return {"agglomerate.method": "global"}


@dataclass(frozen=True)
class GlobalAgglomeration(_Global, DriverStep):
    """The whole graph in memory, where it is small (`DRIVER_VOXELS`). Memory: about 200 bytes per edge."""

    @override
    def execute(self) -> None:
        checksums = np.zeros(len(self.grid), dtype=np.uint64)
        with open_graph(self.run) as store:
            _, edges = read_graph(store, RagTask(self.run))
            allowed = ~self.forbidden(edges.u, edges.v)
            seen = edges if allowed.all() else edges.select(allowed)
            whole = ClusterEdges.of_fragments(seen.u, seen.v, seen.affinity_sum, seen.count)
            linked = link_region(whole, np.zeros(len(whole), bool), ClusterEdges.empty())
            scored = _with_forbidden(edges, allowed, linked.score)
            for block, owned in edges_by_owner(scored, self.grid):
                store.write_scores(block, owned)
                checksums[block] = score_checksums(owned).sum()
        score_records(self).write_all(checksums)


@dataclass(frozen=True)
class RegionalAgglomeration(_Global, BlockTask):
    """The last step of linkage by regions (`linkage.py`): a block writes the scores of its edges."""

    together = TOGETHER

    @override
    def settings(self) -> dict[str, Any]:
        maximum = self.run.config.agglomerate.maximum_score
        return super().settings() if maximum == 1 else {**super().settings(), "agglomerate.maximum_score": maximum}

    @cached_property
    def above(self) -> LinkageTask | MergeScoresTask:
        """The stage that has the scores of each block."""
        return LinkageTask(self.run, 0) if levels_of(self.run, self.grid) == 1 else MergeScoresTask(self.run, 0)

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return (self.above, *self.edge_stages)

    @cached_property
    @override
    def key(self) -> str:
        upstream = [stage.key for stage in self.edge_stages]  # regions decide nothing
        return config_hash(self.name, self.version, self.settings(), upstream)

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        with open_graph(self.run) as store:

            def process_block(block: Block) -> None:
                edges = store.read_block_edges([block.index])
                allowed = ~self.forbidden(edges.u, edges.v)
                scores = read_scores(self.above, block.index, int(allowed.sum()))
                scored = _with_forbidden(edges, allowed, scores)
                store.write_scores(block.index, scored)
                self.records.write(block.index, int(score_checksums(scored).sum()), len(scored))

            yield process_block


def _with_forbidden(edges: EdgeTable, allowed: np.ndarray, scores: np.ndarray) -> EdgeTable:
    """Edges (E) with the scores (A,) of those that are allowed (E,), in their order."""
    score = np.full(len(edges), FORBIDDEN)
    score[allowed] = scores
    return replace(edges, score=score)


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
        return (rag, *rag.upstream, *class_stages(self.run))

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
                seen, ids = affinities.read(around)[: len(NEAREST_NEIGHBOURS)], fragments.read(around)
                classes = self.forbidden.classes(np.unique(ids)) if config.never_join is not None else None
                pairs, scores = waterz_edge_scores(seen, ids, config.merge_function, classes)
                first_id, end_id = self.grid.fragment_ids(block)
                owned = (pairs[:, 1] >= np.uint64(first_id)) & (pairs[:, 1] < np.uint64(end_id))
                edges = scored_edges(pairs[owned], scores[owned])
                if classes is not None:
                    own = store.read_block_edges([block.index])
                    never = own.pairs[self.forbidden(own.u, own.v)]
                    edges = EdgeTable.concatenate([edges, scored_edges(never, np.full(len(never), FORBIDDEN))])
                store.write_scores(block.index, edges)
                self.records.write(block.index, int(score_checksums(edges).sum()), len(edges))

            yield process_block


def scored_edges(pairs: np.ndarray, scores: np.ndarray) -> EdgeTable:
    """Merge scores (E,) of pairs (E, 2), as a table without statistics."""
    zeros = np.zeros(len(pairs))
    return replace(EdgeTable.of(pairs, zeros, zeros), score=scores)


def agglomeration(run: Run) -> Stage:
    """The stage that writes the scores, in the configured way."""
    return scoring_stages(run)[-1]


def scoring_stages(run: Run) -> list[Stage]:
    """The stages from the graph to its scores, upstream ones first."""
    classes = class_stages(run)
    if run.config.agglomerate.method == "waterz":
        return [*classes, WaterzAgglomeration(run)]
    try:
        grid = BlockGrid.of_run(run)
    except UserError:  # there is no raw yet, or no such region, and the stages before say so
        return [*classes, GlobalAgglomeration(run)]
    levels = levels_of(run, grid)
    if levels == 1 and grid.box.size <= DRIVER_VOXELS:
        return [*classes, GlobalAgglomeration(run)]
    return [*classes, *linkage_stages(run, levels), RegionalAgglomeration(run)]


def readers_of_affinities(run: Run) -> tuple[BlockTask, ...]:
    """The block tasks that read affinities as they lie on the disk."""
    tasks = (FragmentsTask(run), RagTask(run), agglomeration(run))
    reading = [task for task in tasks if any(stage.stage == PredictTask.stage for stage in task.reads)]
    return tuple(task for task in reading if isinstance(task, BlockTask))
