"""Small files at any place: a folder or a bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from isal.isal_zlib import crc32

from ..errors import UserError
from ..small_files import replaced_file
from .locations import Location
from .storage import DATA_WAIT, exists, open_store, wait

PART = 1 << 24
"""Bytes of a file that are in memory at a time."""


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


def copy_file(location: Location, name: str, path: Path) -> int:
    """Write a file that lies on a disk, in one step, at any place; its CRC-32. In memory is a small part of it; of one
    that goes to a bucket, all.

    Raises:
        StorageUnavailable, UserError: the place cannot be written.
    """
    checksum = 0
    with path.open("rb") as source:
        if not location.is_local:
            content = source.read()
            write_file(location, name, content)
            return crc32(content)
        with replaced_file(location.file / name) as copy:
            for part in _parts(source):
                copy.write(part)
                checksum = crc32(part, checksum)
    return checksum


def checksum_of_file(location: Location, name: str) -> int | None:
    """CRC-32 of a file of any place; None if it is not there.

    Raises:
        StorageUnavailable, UserError: the place cannot be read.
    """
    if not location.is_local:
        content = read_file(location, name)
        return None if content is None else crc32(content)
    path, checksum = location.file / name, 0
    try:
        with path.open("rb") as file:
            for part in _parts(file):
                checksum = crc32(part, checksum)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", str(path)) from error
    return checksum


def _parts(file: BinaryIO) -> Iterator[bytes]:
    while part := file.read(PART):
        yield part


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
