"""What of codecs is refused before TensorStore, which knows codecs of numbers only, decodes the rest.

Codecs that rebuild Python objects may run anybody's code: refused by name, whatever could decode them. Chunks that
cloud-volume compressed once more have names that nothing else reads: they would be missing, and read as zeros.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError

OF_OBJECTS = ("pickle", "json", "json2", "msgpack", "msgpack2", "vlen-array", "vlen-bytes", "vlen-utf8", "categorize")
"""Codecs of numcodecs that decode to Python objects; zarr 3 also calls them `numcodecs.pickle` and so on."""
_NAMES = ("id", "name", "type")
"""Under which key a codec says what it is: in zarr 2, zarr 3, N5."""
_PLACES = ("compressor", "compression", "filters", "codecs", "configuration", "index_codecs", "storage_transformers")
"""Under which keys metadata have codecs, one or a list, also inside each other."""
_COMPRESSED = {".gz": "gunzip -r {}", ".br": "brotli -d --rm {}/*"}
"""Endings by which cloud-volume tells on a disk how a file is compressed, and what undoes it in a folder."""


def refuse_codecs_of_objects(metadata: Mapping[str, Any], name: str) -> None:
    """Refuse an array that is stored as Python objects.

    Args:
        metadata: of the array, as they are stored.
        name: of the array, for the message.

    Raises:
        UserError: one of its codecs decodes to Python objects.
    """
    for codec in _codecs(metadata):
        called = codec.lower().removeprefix("numcodecs.").replace("_", "-")
        if called in OF_OBJECTS:
            raise UserError(
                f"its codec {codec!r} decodes Python objects, which may run anybody's code; write the array again, as "
                "numbers, with blosc, zstd or gzip",
                name,
            )


def refuse_compressed_files(folder: Path, name: str, where: str) -> None:
    """Refuse chunks of a precomputed volume on this machine that cloud-volume has compressed as files.

    Args:
        folder: of a level; it need not exist.
        name: of the volume, for the message.
        where: dotted path of its place in the config.

    Raises:
        UserError: the first of its files is one of those.
    """
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        first = next((Path(entry.path) for entry in entries if entry.is_file()), None)
    undo = _COMPRESSED.get(first.suffix) if first is not None else None
    if first is not None and undo is not None:
        raise UserError(
            f"the chunks of {name} are compressed files ({first.name}), as cloud-volume writes them on a disk; unpack"
            f" them ({undo.format(folder)}), or have it write them with compress=False",
            where,
        )


def _codecs(value: Any) -> Iterator[str]:
    """The names of all codecs in metadata."""
    if isinstance(value, list):
        for item in value:
            yield from _codecs(item)
    elif isinstance(value, Mapping):
        yield from (value[key] for key in _NAMES if isinstance(value.get(key), str))
        for key in _PLACES:
            yield from _codecs(value.get(key))
    elif isinstance(value, str):
        yield value  # N5 and zarr 3 may name a codec without settings
