"""What every graph store offers, whatever database lies behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import networkx as nx
import numpy as np
from funlib.geometry import Roi

from .tables import EdgeTable, NodeTable


@dataclass(frozen=True)
class RagCounts:
    """What a store holds; an edge that several blocks contribute to counts once per block."""

    blocks: int
    nodes: int
    edges: int
    scored_edges: int


class RagStore(ABC):
    """A region adjacency graph, stored in portions that belong to blocks.

    Writing a block replaces what it wrote before in one transaction, so replaying a block never doubles anything.
    An edge may have a portion in several blocks; reading adds them up. Use as a context manager, or call `close`.
    """

    @abstractmethod
    def write_block(self, block: int, nodes: NodeTable, edges: EdgeTable) -> None:
        """Replace all nodes and edges of a block in one transaction."""

    @abstractmethod
    def write_scores(self, block: int, scores: EdgeTable) -> None:
        """Set the merge scores of edges of a block in one transaction; its other edges lose theirs."""

    @abstractmethod
    def clear_scores(self) -> None:
        """Forget all merge scores."""

    @abstractmethod
    def blocks(self) -> np.ndarray:
        """Ids of the blocks that were written, ascending, int64."""

    @abstractmethod
    def iterate_nodes(self, rows: int = 1_000_000) -> Iterator[NodeTable]:
        """All nodes in tables of at most `rows` rows, ordered by id as long as ids ascend with blocks."""

    @abstractmethod
    def iterate_edges(self, rows: int = 1_000_000) -> Iterator[EdgeTable]:
        """All edges as the blocks wrote them, in tables of at most `rows` rows, ordered by block, u, v."""

    @abstractmethod
    def read_nodes(self, roi: Roi | None = None) -> NodeTable:
        """The nodes whose centre lies in a region (nanometres), sorted by id; all without a region."""

    @abstractmethod
    def read_edges(self, roi: Roi | None = None) -> EdgeTable:
        """The edges between nodes whose centres lie in a region, summed over blocks, sorted; all without a region."""

    @abstractmethod
    def counts(self) -> RagCounts:
        """How much the store holds."""

    @abstractmethod
    def note(self, name: str) -> str | None:
        """A text that was stored under a name, or None."""

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
        self.close()
