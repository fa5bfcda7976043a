"""Tables as packed records: one compact form of a block for stores that keep bytes."""

from __future__ import annotations

import numpy as np

from .tables import EdgeTable, NodeTable

NODE_RECORD: np.dtype = np.dtype(
    [("id", "<u8"), ("centre", "<f8", 3), ("size", "<i8"), ("begin", "<i8", 3), ("end", "<i8", 3)]
)
"""A node in 88 bytes."""

EDGE_RECORD: np.dtype = np.dtype(
    [("u", "<u8"), ("v", "<u8"), ("count", "<i8"), ("affinity_sum", "<f8"), ("score", "<f8")]
)
"""An edge in 40 bytes; a score that was not set is NaN."""


def node_records(nodes: NodeTable) -> np.ndarray:
    """The nodes as binary records, (N,) `NODE_RECORD`."""
    return _records(nodes, NODE_RECORD)


def edge_records(edges: EdgeTable) -> np.ndarray:
    """The edges as binary records, (E,) `EDGE_RECORD`."""
    return _records(edges, EDGE_RECORD)


def nodes_of(records: np.ndarray | bytes) -> NodeTable:
    """The table of records, or of their bytes."""
    return NodeTable(**_columns(records, NODE_RECORD))


def edges_of(records: np.ndarray | bytes) -> EdgeTable:
    """The table of records, or of their bytes."""
    return EdgeTable(**_columns(records, EDGE_RECORD))


def _records(table: NodeTable | EdgeTable, dtype: np.dtype) -> np.ndarray:
    records = np.empty(len(table), dtype)
    for name in dtype.names or ():
        records[name] = getattr(table, name)
    return records


def _columns(records: np.ndarray | bytes, dtype: np.dtype) -> dict[str, np.ndarray]:
    rows = np.frombuffer(records, dtype) if isinstance(records, bytes) else records
    return {name: rows[name].astype(dtype[name].base.newbyteorder("=")) for name in dtype.names or ()}
