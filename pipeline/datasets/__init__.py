"""Where volumes come from: files, the synthetic phantom, and published data sets; what a run knows of them."""

from .importing import is_imported
from .phantom import Phantom
from .preparing import describe_import, is_ready, require_unchanged

__all__ = ["Phantom", "describe_import", "is_imported", "is_ready", "require_unchanged"]
