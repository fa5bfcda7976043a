"""Where volumes come from: files, the synthetic phantom, and published data sets; and their import into a run."""

from .importing import import_source, is_imported
from .phantom import Phantom
from .preparing import describe_import, ensure_imported, is_ready, require_unchanged
from .source_audit import audit_sources

__all__ = [
    "Phantom",
    "audit_sources",
    "describe_import",
    "ensure_imported",
    "import_source",
    "is_imported",
    "is_ready",
    "require_unchanged",
]
