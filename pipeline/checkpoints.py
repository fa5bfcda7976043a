"""Where the checkpoints of a network lie: names of files alone, which every stage can afford to look at."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import UserError


def checkpoint_path(directory: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration lies."""
    return directory / f"checkpoint_{iteration:07d}.pt"


def checkpoints(directory: Path) -> list[Path]:
    """All checkpoints of a folder, oldest iteration first."""
    return [path for _, path in _numbered(directory)]


def newest_iteration(directory: Path) -> int:
    """The highest iteration that a folder has a checkpoint of; 0 if it has none."""
    return max((iteration for iteration, _ in _numbered(directory)), default=0)


def _numbered(directory: Path) -> list[tuple[int, Path]]:
    found = [(re.fullmatch(r"checkpoint_(\d+)\.pt", path.name), path) for path in directory.glob("checkpoint_*.pt")]
    return sorted((int(match[1]), path) for match, path in found if match)


def latest_checkpoint(directory: Path) -> Path:
    """The checkpoint of the highest iteration.

    Raises:
        UserError: the folder has none.
    """
    found = checkpoints(directory)
    if not found:
        raise UserError("there is no checkpoint; train the network first", str(directory))
    return found[-1]
