"""Files that torch writes: tensors and plain types only, so that a file from a stranger cannot run code.

A file carries a SHA-256 of its content, as it is in memory, which is compared when it is read. So a file of which a bit
has changed is refused, or reads the same. The digest is over values and not over bytes of the file, since torch and zip
do not agree on what every byte of an archive means. Files of earlier versions have none; of them the CRC-32 of each
record of the archive is compared, which torch writes and does not look at.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..run import replaced_file

logger = logging.getLogger(__name__)

DIGEST = "digest"
"""The key of the digest in the document."""
ZIP_START = b"PK\x03\x04"
"""The first bytes of a zip archive: those by which torch, too, tells it from its former format."""
DAMAGED = (
    *(OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error),
)
"""What torch, pickle and zip raise when they meet bytes that are none of theirs."""


def write_torch_file(path: Path, document: dict[str, Any]) -> None:
    """Write a file in one step: a reader sees the old or the new one, never a part.

    Args:
        path: the file; its folder is created.
        document: tensors and plain types only.

    Raises:
        UserError: the disk is full or not writable.
    """
    try:
        with replaced_file(path) as file:
            torch.save({**document, DIGEST: content_digest(document)}, file)
    except RuntimeError as error:  # what torch makes of a disk that is full
        raise UserError("cannot be written; is the disk full?", str(path)) from error


def read_torch_file(path: Path, *, missing: str, damaged: str) -> Any:
    """The content of a file, on the CPU, read with `weights_only=True` and compared with its digest.

    Args:
        path: the file.
        missing: what to tell the user if it does not exist.
        damaged: what to tell the user if it cannot be read, or is not what was written.

    Raises:
        UserError: it is missing, damaged, or holds more than tensors and plain types.
    """
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(document, dict) or not _fits_its_records(path):
            raise ValueError("damaged")
        digest = document.pop(DIGEST, None)
        if digest is None:
            logger.info("%s has no digest, as an earlier version wrote it: its records fit their checksums", path)
        elif digest != content_digest(document):
            raise ValueError("damaged")
    except FileNotFoundError:
        raise UserError(missing, str(path)) from None
    except DAMAGED:
        raise UserError(damaged, str(path)) from None
    return document


def _fits_its_records(path: Path) -> bool:
    """Whether every record of the archive fits its checksum. What is no archive, but can be read, has none.

    Raises:
        one of `DAMAGED`: the archive itself is none any more.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP_START)) != ZIP_START:
            return True
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None


def content_digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of everything in a document: keys and plain values as they are written in Python, tensors by type, shape
    and bytes; in hexadecimal digits.

    Raises:
        TypeError: something is neither a tensor nor plain.
    """
    digest = hashlib.sha256()
    for part in _parts(document):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes | memoryview]:
    """What a digest is made of; lengths come first, so that nothing can be read in two ways."""
    if isinstance(value, torch.Tensor):
        yield f"tensor {value.dtype} {tuple(value.shape)};".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)};".encode()
        for key, part in value.items():
            yield from _parts(key)
            yield from _parts(part)
    elif isinstance(value, list | tuple):
        yield f"sequence {len(value)};".encode()
        for part in value:
            yield from _parts(part)
    elif value is None or isinstance(value, bool | int | float | str):
        text = f"{type(value).__name__} {value!r}".encode()
        yield f"{len(text)} ".encode() + text
    else:
        raise TypeError(f"a {type(value).__name__} is neither a tensor nor a plain value")


def require_numbers(value: Any, path: Path | str, cure: str) -> None:
    """Refuse tensors that are not finite: one NaN makes everything that is computed with it NaN.

    Args:
        value: tensors in dictionaries and lists.
        path: where they come from, for the message.
        cure: what to do about it, for the message.

    Raises:
        UserError: names the first tensor that holds NaN or an infinity.
    """
    name = first_not_finite(value)
    if name is not None:
        raise UserError(f"{name} holds NaN or infinite values; {cure}", str(path))


def first_not_finite(value: Any, name: str = "") -> str | None:
    """Dotted name of the first tensor that holds NaN or an infinity; None if all are finite."""
    if isinstance(value, torch.Tensor):
        floating = value.is_floating_point() or value.is_complex()
        return (name or "a tensor") if floating and not bool(torch.isfinite(value).all()) else None
    parts: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, list | tuple):
        parts = list(enumerate(value))
    found = (first_not_finite(part, f"{name}.{key}" if name else str(key)) for key, part in parts)
    return next((bad for bad in found if bad is not None), None)
