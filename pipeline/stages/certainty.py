"""After stage 05: how sure the segmentation is, block by block, from the rows of the graph alone.

`certainty` has one voxel for every block of the run, which is as large as the block: fragments do not cross blocks, so
a block's rows of the graph say all about what is joined inside it, and nothing finer is known without reading voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ..command_names import SCRIPTS, command_line
from ..engine.blocks.empty_blocks import all_empty
from ..engine.blocks.grid import Block, BlockGrid
from ..engine.blocks.stage import BlockFunction, Stage, VolumeTask
from ..errors import UserError
from ..rag import EdgeTable, NodeTable
from ..run import CERTAINTY, Run
from ..segmentation import FORBIDDEN, certainty_of
from ..volumes import open_volume, volume_exists
from .agglomerate import agglomeration
from .graph_rows import block_checksums, is_as_recorded, score_records
from .region_graph import RagTask, open_graph

SIDE = 8
"""Blocks along each axis that one worker computes at a time, and that lie in one file."""


@dataclass(frozen=True)
class CertaintyTask(VolumeTask):
    """How sure the segmentation at a threshold is.

    Attributes:
        threshold: edges up to this score are merged.
    """

    threshold: float

    stage = "certainty"
    version = 1
    is_redone = True
    together = "certainty"
    script = SCRIPTS["segment"]
    dataset = CERTAINTY
    dtype = "float32"

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return (agglomeration(self.run),)

    @property
    @override
    def reads(self) -> tuple[Stage, ...]:
        return (RagTask(self.run),)

    @cached_property
    def whole_grid(self) -> BlockGrid:
        """The region in the blocks whose certainty is computed."""
        return BlockGrid.of_run(self.run)

    @property
    @override
    def downsampling(self) -> Coordinate:
        return self.whole_grid.block_size

    @cached_property
    @override
    def chunk_grid(self) -> BlockGrid:
        return self.whole_grid.merged(Coordinate(SIDE, SIDE, SIDE))

    @cached_property
    def _graph(self) -> RagTask:
        return RagTask(self.run)

    @cached_property
    @override
    def empty(self) -> np.ndarray:
        return all_empty(self._graph.empty, self.whole_grid, self.grid)

    @override
    def known_empty(self) -> tuple[np.ndarray, bool]:
        known, are_all = self._graph.known_empty()
        return all_empty(known, self.whole_grid, self.grid), are_all

    @property
    @override
    def empty_is_an_answer(self) -> bool:
        return True  # where there are no fragments

    @override
    def settings(self) -> dict[str, Any]:
        limit = self.run.config.agglomerate.maximum_score
        return {
            "segment.thresholds": round(self.threshold, 6),
            "agglomerate.maximum_score": limit,
            **({} if limit == 1 else {"beyond": "no decision"}),  # since version 1 counted them
        }

    @override
    def attributes(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "scores": self._checksum_of_scores()}

    def _checksum_of_scores(self) -> int:
        """Of all merge scores, as they were recorded: with one block's, those of others may change."""
        return int(score_records(agglomeration(self.run)).read().checksum.sum() & np.uint64(2**53 - 1))

    @override
    def is_intact(self) -> bool:
        return self.open().array.attrs.get("scores") == self._checksum_of_scores()

    @override
    def resume(self) -> None:
        if not self.is_intact():  # the scores are others: what was computed is of no use
            self.forget_blocks()
            self.prepare()

    @override
    def input_holds(self) -> Callable[[Block], bool]:
        return lambda block: False  # zeros are an answer

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        output, limit = self.open_output(), self.run.config.agglomerate.maximum_score
        with open_graph(self.run) as store:
            graph = SoundRows(self.run)

            def process_block(block: Block) -> None:
                stored = self.stored_box(block.box)
                certainty = np.zeros(stored.shape, np.float32)
                blocks = [own for own in self.whole_grid.blocks_in(block.box) if not graph.empty[own.index]]
                rows = store.read_blocks([own.index for own in blocks])
                for own, (nodes, edges) in zip(blocks, rows, strict=True):
                    graph.check(own.index, nodes, edges)
                    place = own.box.begin / self.whole_grid.block_size - stored.begin
                    certainty[tuple(place)] = block_certainty(nodes, edges, self.threshold, limit)
                output.write(Block(block.index, stored), certainty)

            yield process_block


def block_certainty(nodes: NodeTable, edges: EdgeTable, threshold: float, maximum_score: float = 1.0) -> float:
    """How sure the segmentation of a block is.

    Args:
        nodes: the fragments of the block, sorted by id.
        edges: those that the block owns; edges that lead to other blocks join nothing inside it.
        threshold: edges up to this score are merged.
        maximum_score: edges above this are merged at no threshold, which is no decision: whether the graph was linked
            as a whole, and has their scores, or by regions, and has 1 in their place, is the same.
    """
    inside = np.isin(edges.u, nodes.id) & np.isin(edges.v, nodes.id)
    pairs, scores = np.searchsorted(nodes.id, edges.pairs[inside]), edges.score[inside]
    scores = np.where(scores > maximum_score, FORBIDDEN, scores)
    return certainty_of(nodes.size, pairs, scores, min(threshold, maximum_score))


class SoundRows:
    """Whether the rows of a block are those that were written.

    Args:
        run: whose graph.

    Attributes:
        empty: (N,) bool over the blocks of the graph, those that have no rows.
    """

    def __init__(self, run: Run) -> None:
        graph = RagTask(run)
        self.empty = graph.empty.ravel()
        self._rows = graph.records.read()
        self._scores = score_records(agglomeration(run)).read()
        self._output = graph.output
        self._audit = command_line("audit.py", run.directory / "config.json", "--requeue")

    def check(self, block: int, nodes: NodeTable, edges: EdgeTable) -> None:
        """Compare the rows of a block with what was recorded.

        Raises:
            UserError: they are lost or have changed.
        """
        sound = is_as_recorded(nodes, edges, int(self._rows.checksum[block]))
        if self._scores.present[block]:  # an earlier version recorded none
            sound = sound and block_checksums(nodes, edges)[1] == int(self._scores.checksum[block])
        if not sound:
            raise UserError(
                f"the graph has lost or changed rows of block {block} since they were written; {self._audit} has them"
                " made again",
                self._output,
            )


def certainty_stages(run: Run, threshold: float) -> list[Stage]:
    """The stage that makes `certainty` at a threshold, if the config asks for it."""
    return [CertaintyTask(run, threshold)] if run.config.segment.certainty else []


def written_certainty(run: Run) -> list[Stage]:
    """The stage of the array that there is, if it was begun from the present graph."""
    if not volume_exists(run.volume, CERTAINTY):
        return []
    threshold = open_volume(run.volume, CERTAINTY).array.attrs.get("threshold")
    tasks = [CertaintyTask(run, float(threshold))] if isinstance(threshold, int | float) else []
    return [task for task in tasks if task.stored_key() == task.key]
