"""The region adjacency graph: one interface, one store per database."""

from __future__ import annotations

from .address import password_in_environment
from .opening import open_rag, rag_exists, rag_is_missing
from .store import RagCounts, RagStore
from .tables import EdgeTable, NodeTable
from .trouble import is_connection_trouble

__all__ = [
    "EdgeTable",
    "NodeTable",
    "RagCounts",
    "RagStore",
    "is_connection_trouble",
    "open_rag",
    "password_in_environment",
    "rag_exists",
    "rag_is_missing",
]
