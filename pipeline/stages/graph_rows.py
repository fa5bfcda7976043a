"""The rows of the graph against what the blocks recorded that they wrote, while the rows are read.

Every block has one checksum over its nodes and edges, and one over its scores. Both lie in the records of its stage,
beside the run and not in the database, and are sums of row hashes, which know no order and no store. So whoever reads
the graph notices a changed bit, a row or a block that is gone, and a database that went back to an earlier state (an
SQLite file whose `-wal` was lost after a kill), whatever the store.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from ..command_names import command_line
from ..engine.blocks.checksums import BlockRecords, row_checksums
from ..engine.blocks.grid import BlockGrid
from ..engine.blocks.stage import BlockTask, Stage
from ..engine.tracking.markers import done_blocks
from ..errors import UserError
from ..rag import EdgeTable, NodeTable, RagStore
from ..units import counted

logger = logging.getLogger(__name__)


def node_checksums(nodes: NodeTable) -> np.ndarray:
    """(N,) uint64; their sum is what a block's nodes add to its checksum."""
    vectors = [column for table in (nodes.centre, nodes.begin, nodes.end) for column in table.T]
    return row_checksums(nodes.id, nodes.size, *vectors)


def earlier_node_checksums(nodes: NodeTable) -> np.ndarray:
    """The same as earlier versions computed it: without centre and bounding box."""
    return row_checksums(nodes.id, nodes.size)


def edge_checksums(edges: EdgeTable) -> np.ndarray:
    """(E,) uint64; their sum is what a block's edges add to its checksum."""
    return row_checksums(edges.u, edges.v, edges.count, edges.affinity_sum)


def is_as_recorded(nodes: NodeTable, edges: EdgeTable, checksum: int) -> bool:
    """Whether the rows of a block are those that this or an earlier version has recorded."""
    of_edges = edge_checksums(edges)
    known = (node_checksums(nodes), earlier_node_checksums(nodes))
    return any(int(np.concatenate([of_nodes, of_edges]).sum()) == checksum for of_nodes in known)


def score_checksums(edges: EdgeTable) -> np.ndarray:
    """(E,) uint64; their sum is the checksum of the scores of a block."""
    return row_checksums(edges.u, edges.v, edges.score)


def block_checksums(nodes: NodeTable, edges: EdgeTable) -> tuple[int, int]:
    """The checksum of a block's rows, and that of its scores, as they are recorded."""
    rows = np.concatenate([node_checksums(nodes), edge_checksums(edges)]).sum()
    scored = edges.select(~np.isnan(edges.score))
    return int(rows), int(score_checksums(scored).sum())


class RowSums:
    """Checksums of the rows that were read, per block; what belongs to no block is the last entry.

    Args:
        grid: gives each fragment id its block.

    Attributes:
        nodes, edges, scores: (N + 1,) uint64 each.
        unscored: edges without a score.
    """

    def __init__(self, grid: BlockGrid) -> None:
        self._grid = grid
        self.nodes, self.edges, self.scores = (np.zeros(len(grid) + 1, dtype=np.uint64) for _ in range(3))
        self.unscored = 0

    def block_of(self, ids: np.ndarray) -> np.ndarray:
        """(N,) int64, the block of each fragment id."""
        size = np.uint64(self._grid.voxels_per_block)
        block = np.minimum((ids - np.uint64(1)) // size, np.uint64(len(self._grid))).astype(np.int64)
        block[ids == 0] = len(self._grid)
        return np.asarray(block)

    def add_nodes(self, nodes: NodeTable) -> None:
        """Count some nodes."""
        add_per_block(self.nodes, self.block_of(nodes.id), node_checksums(nodes))

    def add_edges(self, edges: EdgeTable) -> None:
        """Count some edges, and their scores."""
        block, scored = self.block_of(edges.v), ~np.isnan(edges.score)
        add_per_block(self.edges, block, edge_checksums(edges))
        if not scored.all():
            self.unscored += int(np.count_nonzero(~scored))
            edges, block = edges.select(scored), block[scored]
        add_per_block(self.scores, block, score_checksums(edges))

    def nodes_through(self, tables: Iterator[NodeTable]) -> Iterator[NodeTable]:
        """The tables, each counted as it passes."""
        for nodes in tables:
            self.add_nodes(nodes)
            yield nodes

    def edges_through(self, tables: Iterator[EdgeTable]) -> Iterator[EdgeTable]:
        """The tables, each counted as it passes."""
        for edges in tables:
            self.add_edges(edges)
            yield edges


def add_per_block(sums: np.ndarray, block: np.ndarray, hashes: np.ndarray) -> None:
    """Add hashes (N,) to the sums of their blocks; fast where rows come block after block, as stores give them."""
    if len(block):
        starts = np.flatnonzero(np.append(True, block[1:] != block[:-1]))
        np.add.at(sums, block[starts], np.add.reduceat(hashes, starts))


def read_graph(store: RagStore, graph: BlockTask, scores: Stage | None = None) -> tuple[NodeTable, EdgeTable]:
    """The whole graph, nodes by id and edges summed over blocks, if it is what the blocks wrote.

    Args:
        store: the graph store.
        graph: the stage that wrote nodes and edges.
        scores: the stage that wrote the scores; None before there are any.

    Raises:
        UserError: a row is lost or has changed; says what to run.
    """
    sums = RowSums(graph.grid)
    nodes = NodeTable.concatenate(sums.nodes_through(store.iterate_nodes()))
    edges = EdgeTable.concatenate(sums.edges_through(store.iterate_edges()))
    require_sound(store, sums, graph, scores)
    return nodes.select(np.argsort(nodes.id, kind="stable")), edges.summed()


def check_graph_rows(store: RagStore, graph: BlockTask, scores: Stage | None = None) -> None:
    """The same, in bounded memory, for those who read the graph by themselves afterwards.

    Raises:
        UserError: see `read_graph`.
    """
    sums = RowSums(graph.grid)
    for _ in sums.nodes_through(store.iterate_nodes()):
        pass
    for _ in sums.edges_through(store.iterate_edges()):
        pass
    require_sound(store, sums, graph, scores)


def changed_rows(store: RagStore, sums: RowSums, graph: BlockTask) -> np.ndarray:
    """(N,) bool, the blocks whose nodes and edges are not those that were recorded.

    Args:
        store: the graph store, to be read again where an earlier version wrote the records.
        sums: of all its rows.
        graph: the stage that wrote them; blocks of it without a record have none to compare, and are not named.
    """
    done, records = done_blocks(graph).ravel(), graph.records.read()
    expected = np.where(done, records.checksum, np.uint64(0))
    comparable = records.present | ~done
    changed: np.ndarray = comparable & (sums.nodes[:-1] + sums.edges[:-1] != expected)
    if not changed.any():
        return changed
    earlier = np.zeros_like(sums.nodes)
    for nodes in store.iterate_nodes():
        add_per_block(earlier, sums.block_of(nodes.id), earlier_node_checksums(nodes))
    return np.asarray(changed & (earlier[:-1] + sums.edges[:-1] != expected))


def changed_scores(sums: RowSums, scores: Stage) -> np.ndarray:
    """(N,) bool, the blocks whose scores are not those that were recorded; none where an earlier version, which
    recorded no scores of `global`, has agglomerated.
    """
    found = score_records(scores)
    if not found.path.exists():
        return np.zeros(len(scores.grid), dtype=bool)
    records = found.read()
    return np.asarray(records.present & (sums.scores[:-1] != records.checksum))


def score_records(scores: Stage) -> BlockRecords:
    """Where the checksums of the scores are: in the folder of the stage, as those of blocks are."""
    return BlockRecords(scores.folder / "records", len(scores.grid))


def require_sound(store: RagStore, sums: RowSums, graph: BlockTask, scores: Stage | None) -> None:
    """Refuse a graph that is not what the blocks wrote.

    Args:
        store, graph, scores: as for `read_graph`.
        sums: of all rows, as they were read.

    Raises:
        UserError: see `read_graph`.
    """
    audit = command_line("audit.py", graph.run.directory / "config.json", "--requeue")
    done = done_blocks(graph).ravel()
    changed = changed_rows(store, sums, graph) | (done & ~graph.records.read().present)
    strange = bool(sums.nodes[-1]) or bool(sums.edges[-1])
    if changed.any() or strange:
        which = f"the first is block {int(np.argmax(changed))}" if changed.any() else "they belong to no block"
        raise UserError(
            f"the graph has lost or changed rows of {counted(max(1, int(changed.sum())), 'block')} since they were"
            f" written, {which}; {audit} has them made again",
            graph.output,
        )
    if scores is None:
        return
    if not score_records(scores).path.exists():
        logger.info("the scores in %s have no checksums: an earlier version has agglomerated", graph.output)
    changed = changed_scores(sums, scores)
    unscored = 0 if isinstance(scores, BlockTask) else sums.unscored  # on the whole graph, every edge gets one
    if changed.any() or unscored:
        what = f"of {counted(int(changed.sum()), 'block')}" if changed.any() else f"of {counted(unscored, 'edge')}"
        raise UserError(
            f"the merge scores {what} are lost or have changed since they were written; {audit} has them made again",
            graph.output,
        )
