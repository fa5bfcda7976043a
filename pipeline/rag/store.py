"""What every graph store offers, whatever database lies behind it."""

from __future__ import annotations

import itertools
import tokenize
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from funlib.geometry import Roi

from ..command_names import name_of
from ..errors import UserError
from .block_index import AnyTable, BlockEntry, BlockIndex, read_groups, rebatch
from .connection_errors import is_connection_error
from .tables import EdgeTable, NodeTable

if TYPE_CHECKING:
    import networkx as nx

UNDECODABLE = (
    *(ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError, MemoryError),
    *(SyntaxError, tokenize.TokenError),  # the header of a numpy array is a piece of Python
)
"""What decoding rows raises when they are none any more."""
FEW_BLOCKS = 16
"""Blocks whose rows are read together where each is looked at by itself."""
LARGEST_ID = 2**63 - 1
"""Databases have signed integers of 64 bits."""


@dataclass(frozen=True)
class RagCounts:
    """What a store holds; an edge that several blocks contribute to counts once per block."""

    blocks: int
    nodes: int
    edges: int
    scored_edges: int


class RagStore(ABC):
    """A region adjacency graph, stored in portions that belong to blocks.

    Writing a block replaces what it wrote before in one step, so replaying a block never doubles anything, and a reader
    or a crash finds the old or the new block. An edge may have a portion in several blocks; reading adds them up. Use
    as a context manager, or call `close`. All methods raise the database driver's own error when the server goes away;
    the next call connects again. Whoever lets it leave the context manager gets it as one line for the user.
    """

    def write_block(self, block: int, nodes: NodeTable, edges: EdgeTable) -> None:
        """Replace all nodes and edges of a block, scores included, in one step; on disk when this returns.

        Raises:
            UserError: an id is too large for databases.
            ValueError: a node or an edge is there twice.
        """
        _refuse_large_ids(nodes.id, edges.u, edges.v)
        nodes = nodes.select(np.argsort(nodes.id, kind="stable"))
        edges = edges.select(np.lexsort((edges.v, edges.u)))
        twice = (edges.u[1:] == edges.u[:-1]) & (edges.v[1:] == edges.v[:-1])
        if (nodes.id[1:] == nodes.id[:-1]).any() or twice.any():
            raise ValueError(f"block {block} has a node or an edge twice")
        self._replace_block(BlockEntry.of(block, nodes, edges), nodes, edges)

    @abstractmethod
    def _replace_block(self, entry: BlockEntry, nodes: NodeTable, edges: EdgeTable) -> None:
        """Store a block's rows, which are sorted, in place of its former ones, in one step."""

    @abstractmethod
    def write_scores(self, block: int, scores: EdgeTable) -> None:
        """Set the merge scores of edges of a block in one step; its other edges lose theirs.

        Args:
            block: its id; a block that was never written stays so.
            scores: edges in any order; those that the block does not hold do not matter.
        """

    def clear_scores(self) -> None:
        """Remove all merge scores, block by block."""
        index = self._block_index()
        for block in index.block[index.scored > 0].tolist():
            self.write_scores(block, EdgeTable.empty())

    @abstractmethod
    def _block_index(
        self, roi: Roi | None = None, ids: tuple[int, int] | None = None, blocks: Sequence[int] | None = None
    ) -> BlockIndex:
        """The summaries of all blocks, or of those with nodes in a region, or with a `v` from ids[0] to ids[1], or of
        some; what this takes does not grow with other blocks then.
        """

    @abstractmethod
    def _read_nodes(self, blocks: Sequence[int]) -> Iterator[NodeTable]:
        """The nodes of each of a few blocks, sorted by id."""

    @abstractmethod
    def _read_edges(self, blocks: Sequence[int]) -> Iterator[EdgeTable]:
        """The edges of each of a few blocks, sorted by u, v."""

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        """Turn what numpy and the database raise at rows that are none any more into one line for the user.

        Raises:
            UserError: a row cannot be decoded.
        """
        try:
            yield
        except Exception as error:
            if not self._is_damage(error):
                raise
            raise UserError(
                f"the graph is damaged, a row cannot be decoded ({error}); {self._how_to_start_over}", "rag.url"
            ) from error

    def _is_damage(self, error: Exception) -> bool:
        """Whether an error says that rows are none any more, and not that a server or the program is at fault."""
        return isinstance(error, UNDECODABLE)

    @property
    def _how_to_start_over(self) -> str:
        """What to do about a store that cannot be read."""
        return f"{self._how_to_delete}, and {name_of('04_agglomerate.py')} makes it anew"

    @property
    def _how_to_delete(self) -> str:
        """What to do with a store that cannot be read."""
        return "`python -m pipeline.rag drop` it"

    def blocks(self) -> np.ndarray:
        """Ids of the blocks that were written, ascending, int64."""
        return self._block_index().block

    def iterate_nodes(self, rows: int = 1_000_000) -> Iterator[NodeTable]:
        """All nodes in tables of at most `rows` rows, ordered by id as long as ids ascend with blocks."""
        index = self._sound_index()
        tables = (self._read_nodes(group) for group in read_groups(index.block, index.nodes))
        yield from self._decoded(rebatch(itertools.chain.from_iterable(tables), rows))

    def iterate_edges(self, rows: int = 1_000_000) -> Iterator[EdgeTable]:
        """All edges as the blocks wrote them, in tables of at most `rows` rows, ordered by block, u, v."""
        index = self._sound_index()
        tables = (self._read_edges(group) for group in read_groups(index.block, index.edges))
        yield from self._decoded(rebatch(itertools.chain.from_iterable(tables), rows))

    def _sound_index(self) -> BlockIndex:
        """The summaries of all blocks.

        Raises:
            UserError: one cannot be decoded.
        """
        with self._decoding():
            return self._block_index()

    def _decoded(self, tables: Iterator[AnyTable]) -> Iterator[AnyTable]:
        """The same tables; only what happens in here is a damaged row, not what is done with them outside."""
        while True:
            with self._decoding():
                table = next(tables, None)
            if table is None:
                return
            yield table

    def read_nodes(self, roi: Roi | None = None) -> NodeTable:
        """The nodes whose centre lies in a region (nanometres), sorted by id; all without a region."""
        if roi is None:
            table = NodeTable.concatenate(self.iterate_nodes())
        else:
            index = self._block_index(roi=roi)
            found = (self._read_nodes(group) for group in read_groups(index.block, index.nodes))
            table = NodeTable.concatenate(_inside(nodes, roi) for nodes in itertools.chain.from_iterable(found))
        return table.select(np.argsort(table.id, kind="stable"))

    def read_edges(self, roi: Roi | None = None) -> EdgeTable:
        """The edges between nodes whose centres lie in a region, summed over blocks, sorted; all without a region."""
        if roi is None:
            return EdgeTable.concatenate(self.iterate_edges()).summed()
        ids = self.read_nodes(roi).id
        if not len(ids):
            return EdgeTable.empty()
        blocks = self._block_index(ids=(int(ids[0]), int(ids[-1]))).blocks_containing(ids)
        found = itertools.chain.from_iterable(self._read_edges(group) for group in read_groups(blocks))
        return EdgeTable.concatenate(
            edges.select(np.isin(edges.u, ids) & np.isin(edges.v, ids)) for edges in found
        ).summed()

    def read_blocks(self, blocks: Sequence[int]) -> Iterator[tuple[NodeTable, EdgeTable]]:
        """Nodes, sorted by id, and edges of each of some blocks, which must have been written; a few are held at a
        time.
        """
        for first in range(0, len(blocks), FEW_BLOCKS):
            group = list(blocks[first : first + FEW_BLOCKS])
            nodes, edges = list(self._decoded(self._read_nodes(group))), list(self._decoded(self._read_edges(group)))
            yield from zip(nodes, edges, strict=True)

    def read_block_edges(self, blocks: Sequence[int]) -> EdgeTable:
        """The edges that a few blocks have written, summed, sorted by u, v."""
        there = self._block_index(blocks=blocks).block.tolist()
        return EdgeTable.concatenate(self._read_edges(there) if there else ()).summed()

    def count_edges(self, blocks: Sequence[int]) -> int:
        """How many rows of edges some blocks have written."""
        with self._decoding():
            return int(self._block_index(blocks=blocks).edges.sum())

    def edges_per_block(self) -> tuple[np.ndarray, np.ndarray]:
        """The blocks that were written, ascending, and how many rows of edges each has; int64."""
        index = self._sound_index()
        return index.block, index.edges

    def read_block_rows(self, blocks: Sequence[int]) -> Iterator[tuple[int, NodeTable, EdgeTable]]:
        """The nodes and edges that a few blocks have written, block by block; those that wrote nothing are left out."""
        with self._decoding():
            index = self._block_index(blocks=blocks)
        for group in read_groups(index.block, index.nodes + index.edges):
            with self._decoding():
                tables = list(zip(group, self._read_nodes(group), self._read_edges(group), strict=True))
            yield from tables

    def counts(self) -> RagCounts:
        """Numbers of blocks, nodes and edges in the store."""
        index = self._block_index()
        columns = (index.nodes, index.edges, index.scored)
        return RagCounts(len(index.block), *(int(column.sum()) for column in columns))

    def copy_to(self, other: RagStore) -> None:
        """Copy everything, block by block, into an empty store of any kind.

        The notes come last: they say which run's graph this is, so no one takes an interrupted copy for a graph.

        Raises:
            UserError: the other store holds something already.
        """
        if len(other.blocks()) or other.notes():
            raise UserError("the store to copy to is not empty; drop its graph first", "rag.url")
        index = self._block_index()
        for group in read_groups(index.block, index.nodes + index.edges):
            for block, nodes, edges in zip(group, self._read_nodes(group), self._read_edges(group), strict=True):
                other.write_block(block, nodes, edges)
        for name, text in self.notes().items():
            other.set_note(name, text)

    def note(self, name: str) -> str | None:
        """A text that was stored under a name, or None."""
        return self.notes().get(name)

    @abstractmethod
    def notes(self) -> dict[str, str]:
        """All notes by name."""

    @abstractmethod
    def set_note(self, name: str, text: str | None) -> None:
        """Store a text under a name; None removes it."""

    @abstractmethod
    def drop(self) -> None:
        """Delete the whole graph and its notes; the store can be written again."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def to_networkx(self, roi: Roi | None = None) -> nx.Graph:
        """The graph of a region: node attributes `centre`, `size`; edge attributes `count`, `affinity`, `score`."""
        import networkx as nx  # slow to import, and no engine needs it

        graph = nx.Graph()
        nodes, edges = self.read_nodes(roi), self.read_edges(roi)
        for node, centre, size in zip(nodes.id.tolist(), nodes.centre.tolist(), nodes.size.tolist(), strict=True):
            graph.add_node(node, centre=tuple(centre), size=size)
        columns = (edges.u, edges.v, edges.count, edges.mean_affinity, edges.score)
        for u, v, count, affinity, score in zip(*(column.tolist() for column in columns), strict=True):
            graph.add_edge(u, v, count=count, affinity=affinity, score=score)
        return graph

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store.

        Raises:
            UserError: from the driver's own error, if the database was busy or went away.
        """
        self.close()
        if isinstance(error, Exception) and not isinstance(error, UserError | OSError) and is_connection_error(error):
            what = f"the database does not answer any more ({error}); the same command continues once it does"
            raise UserError(what, "rag.url") from error


def _inside(nodes: NodeTable, roi: Roi) -> NodeTable:
    return nodes.select(np.all((nodes.centre >= np.array(roi.begin)) & (nodes.centre < np.array(roi.end)), axis=1))


def _refuse_large_ids(*columns: np.ndarray) -> None:
    largest = max((int(ids.max()) for ids in columns if len(ids)), default=0)
    if largest > LARGEST_ID:
        raise UserError(
            f"fragment id {largest} is larger than 2^63 - 1, the largest that databases can hold", "rag.url"
        )
