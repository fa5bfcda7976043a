"""The graph against the fragments: rows are streamed, and what remains of a block are a few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..config import Offset
from ..engine.blocks.grid import Block, BlockGrid
from ..engine.blocks.parallel import in_threads
from ..engine.blocks.readers import readers
from ..engine.blocks.stage import BlockTask, Stage
from ..engine.tracking.markers import done_blocks
from ..offsets import pair_slices
from ..rag import RagStore
from ..volumes import ZERO, RunVolume
from .fragments import FragmentsTask
from .graph_rows import RowSums, add_per_block, changed_rows, changed_scores
from .region_graph import CONTACT_CONTEXT, RagTask, open_graph, read_with_faces


@dataclass(frozen=True)
class GraphFindings:
    """Blocks whose rows are wrong, each (z, y, x) bool over the block grid.

    Attributes:
        unrecorded: blocks of the graph without a checksum.
        changed: the rows are not those that were written.
        nodes_without_voxels: a node has no fragment in the volume.
        voxels_without_nodes: a fragment has no node.
        edges_without_nodes: an edge has no node at an end.
        miscounted: rows that are as they were written, with more or fewer contacts than the fragments have.
        unscored, changed_scores: blocks of the scores without a checksum, or with another one.
        edges_without_score: how many edges have none.
    """

    unrecorded: np.ndarray
    changed: np.ndarray
    nodes_without_voxels: np.ndarray
    voxels_without_nodes: np.ndarray
    edges_without_nodes: np.ndarray
    miscounted: np.ndarray
    unscored: np.ndarray
    changed_scores: np.ndarray
    edges_without_score: int


class _Rows:
    """What is gathered from the rows of the graph, per block.

    Args:
        grid: gives each fragment id its block.
        fragments: (N,) int64, fragments of each block, numbered without gaps; -1 where they are not known.
    """

    def __init__(self, grid: BlockGrid, fragments: np.ndarray) -> None:
        blocks = len(grid)
        self._grid, self._fragments = grid, np.append(fragments, np.zeros(1, fragments.dtype))
        self.sums = RowSums(grid)
        self.nodes = np.zeros(blocks + 1, dtype=np.int64)
        self.strange_nodes = np.zeros(blocks + 1, dtype=bool)
        self.loose_edges = np.zeros(blocks + 1, dtype=bool)
        self.contacts = np.zeros(blocks + 1, dtype=np.int64)

    def place(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) int64 block of each id, and (N,) bool whether the block has a fragment of this id."""
        block = self.sums.block_of(ids)
        local = ((ids - np.uint64(1)) % np.uint64(self._grid.voxels_per_block)).astype(np.int64)
        return block, (local < self._fragments[block]) | (self._fragments[block] < 0)

    def add_nodes(self, store: RagStore) -> None:
        """Read all nodes once."""
        for nodes in self.sums.nodes_through(store.iterate_nodes()):
            block, real = self.place(nodes.id)
            np.add.at(self.nodes, block[real], 1)
            self.strange_nodes[block[~real]] = True

    def add_edges(self, store: RagStore, lost: np.ndarray) -> None:
        """Read all edges once; `lost` are the ids of fragments that have no node."""
        for edges in self.sums.edges_through(store.iterate_edges()):
            block = self.sums.block_of(edges.v)
            add_per_block(self.contacts, block, edges.count)
            for ends in (edges.u, edges.v):
                _, real = self.place(ends)
                self.loose_edges[block[~real | np.isin(ends, lost)]] = True

    def lost_nodes(self, store: RagStore, blocks: np.ndarray) -> np.ndarray:
        """Ids of fragments of some blocks (N,) bool that have no node."""
        if not blocks.any():
            return np.zeros(0, dtype=np.uint64)
        present = [nodes.id[np.append(blocks, False)[self.place(nodes.id)[0]]] for nodes in store.iterate_nodes()]
        expected = []
        for index in np.flatnonzero(blocks).tolist():
            first, _ = self._grid.fragment_ids(self._grid.block(index))
            expected.append(np.arange(first, first + max(0, self._fragments[index]), dtype=np.uint64))
        return np.setdiff1d(np.concatenate(expected), np.concatenate(present) if present else np.zeros(0, np.uint64))


def count_contacts(fragments: RunVolume, block: Block, grid: BlockGrid, neighbours: Sequence[Offset]) -> int:
    """How many contacts a block has to count: by numpy, for the stage does it in compiled loops.

    Args:
        fragments: ids.
        block: whose voxels count.
        grid: gives the block its context.
        neighbours: offsets of the partners, in voxels.
    """
    around = grid.with_context(block.box, CONTACT_CONTEXT, ZERO)
    ids = read_with_faces(fragments, block.box, around)
    owned = block.box.relative_to(around).slices
    total = 0
    for offset in neighbours:
        here, there = (ids[place] for place in pair_slices(offset, ids.shape, owned))
        total += int(np.count_nonzero((here != there) & (here != 0) & (there != 0)))
    return total


def miscounted_blocks(task: RagTask, blocks: np.ndarray, contacts: np.ndarray) -> np.ndarray:
    """(N,) bool, blocks that have more or fewer contacts in the graph than in the fragments.

    Args:
        task: of the graph.
        blocks: (N,) bool, those to look at; the fragments that they read are sound.
        contacts: (N,) int64, what the graph has.
    """
    grid, fragments = task.grid, FragmentsTask(task.run).open()
    neighbours = task.run.config.neighbours

    def differs(block: Block) -> tuple[int, bool]:
        return block.index, count_contacts(fragments, block, grid, neighbours) != contacts[block.index]

    wrong = np.zeros(len(grid), dtype=bool)
    chosen = np.flatnonzero(blocks).tolist()
    pieces = (grid.block(index) for index in chosen)
    title = f"audit contacts of {task.name}"
    for index, differing in in_threads(differs, pieces, task.run.config.cluster.workers, len(chosen), title):
        wrong[index] = differing
    return wrong


def check_graph(
    task: RagTask, done: np.ndarray, fragments: np.ndarray, damaged: np.ndarray, scored: Stage | None
) -> GraphFindings:
    """Compare the graph with the fragments and with what was written.

    Args:
        task: of the graph.
        done: (z, y, x) bool over the block grid, blocks whose rows should be there.
        fragments: (N,) int64, fragments of each block; -1 where they are not known: nothing is said of their ids then.
        damaged: (z, y, x) bool over the block grid of the fragments, blocks that are not as they were written.
        scored: the agglomeration; None if it has not run.
    """
    grid, blocks = task.grid, done.ravel()
    rows = _Rows(grid, fragments)
    with open_graph(task.run) as store:
        rows.add_nodes(store)
        incomplete = blocks & (rows.nodes[:-1] < fragments)
        rows.add_edges(store, rows.lost_nodes(store, incomplete))
        changed = changed_rows(store, rows.sums, task)
    records = task.records.read()

    def over_grid(flags: np.ndarray) -> np.ndarray:
        return np.asarray((blocks & flags).reshape(grid.shape))

    wrong = ~records.present | changed | rows.strange_nodes[:-1] | incomplete | rows.loose_edges[:-1]
    unknown = readers(damaged, FragmentsTask(task.run), task).ravel()
    miscounted = miscounted_blocks(task, blocks & ~wrong & ~unknown, rows.contacts[:-1])
    unscored, other_scores = _scores(scored, rows.sums, blocks)
    return GraphFindings(
        unrecorded=over_grid(~records.present),
        changed=over_grid(changed),
        nodes_without_voxels=over_grid(rows.strange_nodes[:-1]),
        voxels_without_nodes=over_grid(incomplete),
        edges_without_nodes=over_grid(rows.loose_edges[:-1]),
        miscounted=over_grid(miscounted),
        unscored=unscored.reshape(grid.shape),
        changed_scores=other_scores.reshape(grid.shape),
        edges_without_score=rows.sums.unscored,
    )


def _scores(scored: Stage | None, sums: RowSums, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool each: blocks whose scores have no checksum, or another one."""
    if scored is None:
        return np.zeros_like(blocks), np.zeros_like(blocks)
    done = blocks & done_blocks(scored).ravel() if isinstance(scored, BlockTask) else blocks
    unscored = done & ~scored.records.read().present if isinstance(scored, BlockTask) else np.zeros_like(blocks)
    return unscored, done & changed_scores(sums, scored)
