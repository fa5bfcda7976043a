"""Whether a volume that is read where it lies is still the one it was.

Three things count: what the metadata say; size and time of the files (on this machine, as long as there are not too
many); and a digest of the voxels of some chunks, always the same ones.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funlib.geometry import Coordinate
from typing_extensions import TypedDict

from .boxes import Box

if TYPE_CHECKING:
    from .volume import Volume

FILES = 100_000
"""Files whose size and time are looked at; of arrays with more, sampled chunks alone count."""
CHANGES = {
    "metadata": "its shape, type or place",
    "files": "its files",
    "voxels": "its voxels",
}
"""What differs, for people."""


class Identity(TypedDict):
    """What tells whether a volume changed; JSON.

    `metadata` are shape, type, voxel size, offset and axes; `files` a digest of sizes and times, None where they are
    not looked at; `voxels` a digest of the chunks sampled.
    """

    metadata: dict[str, Any]
    files: str | None
    voxels: str


def identity_of(volume: Volume, samples: int) -> Identity:
    """The identity of a volume.

    Args:
        volume: any.
        samples: how many chunks to read; fewer if it has fewer.

    Raises:
        StorageUnavailable: the server does not answer.
        UserError: a sampled chunk cannot be read.
    """
    metadata = {
        "shape": list(volume.array.shape),
        "dtype": volume.dtype.name,
        "voxel_size": list(volume.placement.voxel_size or ()),
        "offset": list(volume.offset),
        "axes": volume.choice.axes,
        "fixed": sorted(volume.choice.fixed.items()),
    }
    metadata = json.loads(json.dumps(metadata))
    digest = hashlib.sha256()
    for box in sampled_chunks(volume, samples, seed="identity"):
        digest.update(repr((tuple(box.begin), tuple(box.end))).encode())
        digest.update(volume.read(box).tobytes())
    return Identity(metadata=metadata, files=_files_digest(volume), voxels=digest.hexdigest())


def what_changed(before: Identity, now: Identity) -> str | None:
    """What differs between two identities of a volume, for people; None if nothing does."""
    for key in ("metadata", "files", "voxels"):
        if before[key] != now[key] and (key != "files" or None not in (before[key], now[key])):
            return CHANGES[key]
    return None


def sampled_chunks(volume: Volume, samples: int, seed: str) -> Iterator[Box]:
    """Boxes of whole chunks, cropped to the volume, spread over it by a seed; all of them if there are not more."""
    counts = [-(-extent // chunk) for extent, chunk in zip(volume.shape, volume.chunks, strict=True)]
    total = math.prod(counts)
    chosen = range(total) if total <= samples else sorted(random.Random(seed).sample(range(total), samples))
    for number in chosen:
        z, rest = divmod(number, counts[1] * counts[2])
        begin = Coordinate(z, *divmod(rest, counts[2])) * volume.chunks
        yield Box(begin, begin + volume.chunks).intersect(volume.box)


def _files_digest(volume: Volume) -> str | None:
    """A digest of names, sizes and times of all files of an array on this machine; None if elsewhere, or too many."""
    location = volume.found.array.location
    if not location.is_local:
        return None
    path = location.file
    while not path.exists():  # a dataset inside an HDF5 file
        path = path.parent
    digest = hashlib.sha256()
    for number, (name, status) in enumerate(_files(path, "")):
        if number == FILES:
            return None
        digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(path: Path, name: str) -> Iterator[tuple[str, os.stat_result]]:
    if path.is_file():
        yield name, path.stat()
        return
    with os.scandir(path) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        if entry.is_dir():
            yield from _files(Path(entry.path), f"{name}/{entry.name}")
        else:
            yield f"{name}/{entry.name}", entry.stat()
