"""What a worker process is told: a file that the driver writes for each task, and variables of its environment."""

from __future__ import annotations

import json
import os
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cloudpickle

from ...run import replaced_file
from ...search_path import absolute
from ..blocks.stage import BlockTask

ORDER = "order"
"""Name of the file in the tracking folder of a task."""
ENDED_EARLY, UNREACHABLE = 3, 4
"""Statuses of a worker process."""


@dataclass(frozen=True)
class Order:
    """What a worker process is to do.

    Attributes:
        task: whose blocks it computes.
        address, port, secret: of the driver's lifeline.
    """

    task: BlockTask
    address: str
    port: int
    secret: str

    def save(self, path: Path) -> None:
        """Write it for this user's eyes.

        Raises:
            UserError: the folder cannot be written.
        """
        with replaced_file(path) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(json.dumps(absolute(sys.path)).encode() + b"\n" + cloudpickle.dumps(self))

    @staticmethod
    def load(path: Path) -> Order:
        """Read one, with everything importable that its driver could import."""
        with path.open("rb") as file:
            sys.path.extend(entry for entry in _search_path(file) if entry not in sys.path)
            order = pickle.load(file)
        assert isinstance(order, Order)
        return order


def order_path(task: BlockTask) -> Path:
    """Where the driver leaves the order for the workers of a task."""
    return task.folder / ORDER


def worker_key(task: BlockTask, worker: str) -> str:
    """Under which name a worker reports to its driver."""
    return f"{task.name}/{worker}"


def _search_path(file: BinaryIO) -> list[str]:
    return [str(entry) for entry in json.loads(file.readline())]
