"""Before something reads all blocks of an array: are they there? One look at the folders, no file is opened."""

from __future__ import annotations

import numpy as np

from ...command_names import command_line
from ...errors import UserError
from ..blocks.stage import VolumeTask
from ..tracking.progress import Progress, progress_of


def require_all_chunks(task: VolumeTask) -> None:
    """Make sure that no shard is lost of an array that is done: it would read as zeros.

    Raises:
        UserError: names the first one that is missing.
    """
    if progress_of(task) is not Progress.DONE:
        return
    array = task.open().array
    missing = np.argwhere(~array.present() & ~task.empty_chunks)
    if len(missing):
        audit = command_line("audit.py", task.run.directory / "config.json", "--requeue")
        first = array.key(missing[0])
        if len(missing) == 1:
            raise UserError(f"{array.called} {first} is missing; {audit} has it made again", task.output)
        raise UserError(
            f"{len(missing):,} {array.called}s are missing, the first is {first}; {audit} has them made again",
            task.output,
        )
