"""Small files at any place: a folder or a bucket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .locations import Location
from .storage import DATA_WAIT, exists, open_store, wait


def write_json(location: Location, name: str, document: Mapping[str, Any]) -> None:
    """Write a small JSON file in one step, at any place.

    Raises:
        StorageUnavailable, UserError: the place cannot be written.
    """
    write_file(location, name, as_json(document))


def as_json(document: Mapping[str, Any]) -> bytes:
    """A small JSON file."""
    return json.dumps(document, indent=1).encode()


def write_file(location: Location, name: str, content: bytes) -> None:
    """Write a file in one step, at any place.

    Raises:
        StorageUnavailable, UserError: the place cannot be written.
    """
    wait(open_store(location).write(name, content), location, DATA_WAIT, "written")


def read_json_at(location: Location, name: str) -> dict[str, Any] | None:
    """A small JSON file of any place; None if it is not there.

    Raises:
        StorageUnavailable, UserError: the place cannot be read.
    """
    content = read_file(location, name)
    return None if content is None else dict(json.loads(content))


def read_file(location: Location, name: str) -> bytes | None:
    """A file of any place; None if it is not there.

    Raises:
        StorageUnavailable, UserError: the place cannot be read.
    """
    result = wait(open_store(location).read(name), location, DATA_WAIT, "read")
    return bytes(result.value) if result.state == "value" else None


def require_file(location: Location, name: str) -> bytes:
    """A file of any place.

    Raises:
        FileNotFoundError: it is not there.
        StorageUnavailable, UserError: the place cannot be read.
    """
    content = read_file(location, name)
    if content is None:
        raise FileNotFoundError(location.child(name).name)
    return content


def exists_at(location: Location, name: str) -> bool:
    """Whether a file of any place is there.

    Raises:
        StorageUnavailable, UserError: the place cannot be asked.
    """
    return exists(location, [name])[0]
