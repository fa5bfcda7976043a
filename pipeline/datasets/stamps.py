"""What tells whether a source changed since it was imported: sizes and modification times of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .section_files import section_files

METADATA_FILES = (".zarray", ".zattrs", ".zgroup", "attributes.json")
"""Files that describe a zarr or N5 group or array."""


def stamp(path: Path) -> list[list[Any]]:
    """Name, size and modification time of the files that tell whether a source changed."""
    if path.is_file():
        return [[path.name, *_size_and_time(path)]]
    files = _metadata_files(path) if is_container(path) else section_files(path)
    return [[str(file.relative_to(path)), *_size_and_time(file)] for file in files]


def _size_and_time(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _metadata_files(container: Path) -> list[Path]:
    """Files that describe the arrays of a zarr or N5 container; folders of chunks are not entered."""
    found = [file for name in METADATA_FILES if (file := container / name).exists()]
    if not (container / ".zarray").exists() and not _is_n5_array(container):
        for folder in sorted(item for item in container.iterdir() if item.is_dir()):
            found.extend(_metadata_files(folder))
    return found


def _is_n5_array(folder: Path) -> bool:
    attributes = folder / "attributes.json"
    return attributes.exists() and "dimensions" in json.loads(attributes.read_text())


def is_container(path: Path) -> bool:
    """Whether a folder is a zarr or N5 container."""
    return path.suffix == ".n5" or any((path / name).exists() for name in METADATA_FILES)
