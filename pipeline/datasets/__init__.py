"""Where volumes come from: files, the synthetic phantom, and published data sets; and their import into a run."""

from .importing import ensure_imported, import_source, is_imported

__all__ = ["ensure_imported", "import_source", "is_imported"]
