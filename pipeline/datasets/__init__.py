"""Where volumes come from: files, the synthetic phantom, and published data sets; what a run knows of them."""

from .before_import import foresee
from .importing import is_imported
from .phantom import Phantom
from .preparing import describe_import, is_ready, require_same_section, require_unchanged
from .source_audit import audit_sources

__all__ = [
    "Phantom",
    "audit_sources",
    "describe_import",
    "foresee",
    "is_imported",
    "is_ready",
    "require_same_section",
    "require_unchanged",
]
