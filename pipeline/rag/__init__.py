"""The region adjacency graph: one interface, one store per database."""

from __future__ import annotations

from .address import password_in_environment
from .connection_errors import is_connection_error
from .fragment_ids import FragmentIds
from .opening import open_rag, rag_exists, rag_is_missing
from .store import RagCounts, RagStore
from .tables import EdgeTable, NodeTable

__all__ = [
    "EdgeTable",
    "FragmentIds",
    "NodeTable",
    "RagCounts",
    "RagStore",
    "is_connection_error",
    "open_rag",
    "password_in_environment",
    "rag_exists",
    "rag_is_missing",
]
