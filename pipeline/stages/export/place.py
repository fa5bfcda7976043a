"""Where an export goes: at a path or a URL."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...volumes.locations import Location


def place_of_export(text: str | Path) -> str:
    """A URL as it is, a path as an absolute one: workers may have another current directory."""
    return str(text) if "://" in str(text) else str(Path(text).expanduser().absolute())


def place_key(to: str) -> str:
    """A short name of a place, for the files that track an export there."""
    return hashlib.sha256(Location.of(to).name.encode()).hexdigest()[:8]
