"""Files that torch writes: tensors and plain types only, so that a file from a stranger cannot run code.

Such a file is a zip archive, and every record in it (each tensor, and the structure around them) has a CRC-32, which
torch writes but does not compare when it reads. Here it is compared, so a file of which a bit has changed is refused.
Files in torch's format of before 2020 have none.
"""

from __future__ import annotations

import logging
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..run import replaced_file

logger = logging.getLogger(__name__)

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
            torch.save(document, file)
    except RuntimeError as error:  # what torch makes of a disk that is full
        raise UserError("cannot be written; is the disk full?", str(path)) from error


def read_torch_file(path: Path, *, missing: str, damaged: str) -> Any:
    """The content of a file, on the CPU, read with `weights_only=True`, after its checksums were compared.

    Args:
        path: the file.
        missing: what to tell the user if it does not exist.
        damaged: what to tell the user if it cannot be read, or is not what was written.

    Raises:
        UserError: it is missing, damaged, or holds more than tensors and plain types.
    """
    try:
        if not _is_as_written(path):
            raise UserError(damaged, str(path))
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(missing, str(path)) from None
    except DAMAGED:
        raise UserError(damaged, str(path)) from None


def _is_as_written(path: Path) -> bool:
    """Whether every record of the archive fits its checksum; a file in torch's former format has none, and is believed.

    Raises:
        one of `DAMAGED`: the archive itself is none any more.
    """
    with path.open("rb") as file:
        start = file.read(len(ZIP_START))
    if start != ZIP_START:
        logger.info("%s has no checksums (torch's format of before 2020): whether it is whole cannot be told", path)
        return True
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None


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
