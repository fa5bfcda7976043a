"""Where volumes come from: files, the synthetic phantom, and published data sets; and their import into a run."""

from .importing import describe_import, ensure_imported, import_source, is_imported, is_ready
from .phantom import Phantom

__all__ = ["Phantom", "describe_import", "ensure_imported", "import_source", "is_imported", "is_ready"]
