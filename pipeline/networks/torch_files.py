"""Files that torch writes: tensors and plain types only, so that a file from a stranger cannot run code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..run import replaced_file


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
    """The content of a file, on the CPU, read with `weights_only=True`.

    Args:
        path: the file.
        missing: what to tell the user if it does not exist.
        damaged: what to tell the user if it cannot be read.

    Raises:
        UserError: it is missing, damaged, or holds more than tensors and plain types.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(missing, str(path)) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        raise UserError(damaged, str(path)) from None
