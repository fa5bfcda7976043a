"""Before something reads all blocks of an array: are they there? One look at the folder, no chunk is opened."""

from __future__ import annotations

import os

import numpy as np

from ...command_names import command_line
from ...errors import UserError
from ..blocks.stage import VolumeTask
from ..tracking.progress import Progress, progress_of


def require_all_chunks(task: VolumeTask) -> None:
    """Make sure that no chunk is lost of an array that is done: zarr would read zeros.

    Raises:
        UserError: names the first one that is missing.
    """
    if progress_of(task) is not Progress.DONE:
        return
    folder = task.run.volume / task.dataset
    present = np.zeros(task.grid.shape, dtype=bool)
    for entry in os.scandir(folder):
        position = entry.name.split(".")
        if len(position) == 3 and all(index.isdigit() for index in position):
            present[tuple(int(index) for index in position)] = True
    missing = np.argwhere(~present & ~task.empty)
    if len(missing):
        chunk = ".".join(str(index) for index in missing[0])
        audit = command_line("audit.py", task.run.directory / "config.json", "--requeue")
        raise UserError(
            f"{len(missing)} chunks are missing, the first is {chunk}; {audit} has them made again",
            str(folder),
        )
