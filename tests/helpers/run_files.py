"""Files of the arrays of a run, to be damaged by tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.run import Run
from pipeline.volumes import open_volume


def shard_of(run: Run, dataset: str, *position: int) -> Path:
    """The file of a block of an array, whether it is there or not."""
    return open_volume(run.volume, dataset).array.file(position)


def shards_of(run: Run, dataset: str, first: int | None = None) -> list[Path]:
    """The files of all blocks, or of those of one layer along z."""
    array = open_volume(run.volume, dataset).array
    positions = np.argwhere(array.present()).tolist()
    return [array.file(position) for position in positions if first in (None, position[0])]
