"""Before something reads all blocks of an array: are they there? One look at the folder, no chunk is opened."""

from __future__ import annotations

import os

import numpy as np

from ..errors import UserError
from ..run import Run
from .fragments import FragmentsTask
from .segment import written_segmentations
from .stage import VolumeTask
from .tracking import Progress, progress_of


def require_chunks(run: Run) -> None:
    """Make sure that no chunk is lost of the arrays that are scored and shown: zarr would read zeros.

    Raises:
        UserError: names the first one that is missing.
    """
    for task in (FragmentsTask(run), *written_segmentations(run)):
        if progress_of(task) is Progress.DONE:
            _require(task)


def _require(task: VolumeTask) -> None:
    folder = task.run.volume / task.dataset
    present = np.zeros(task.grid.shape, dtype=bool)
    for entry in os.scandir(folder):
        position = entry.name.split(".")
        if len(position) == 3 and all(index.isdigit() for index in position):
            present[tuple(int(index) for index in position)] = True
    missing = np.argwhere(~present & ~task.empty)
    if len(missing):
        chunk = ".".join(str(index) for index in missing[0])
        raise UserError(
            f"{len(missing)} chunks are missing, the first is {chunk}; python workflows/audit.py "
            f"{task.run.directory / 'config.json'} --requeue has them made again",
            str(folder),
        )
