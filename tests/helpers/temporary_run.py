"""A run whose affinities are temporary: dropped when they were used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from voronoi_run import everything, make_run

from pipeline.run import Run, read_json
from pipeline.stages.predict import PredictTask

LAYERS, BLOCKS = 8, 8 * 2 * 2


def temporary_run(
    directory: Path,
    keep: str = "until_used",
    seed_distance: int = 3,
    tile: tuple[int, ...] = (1, 40, 20),
    **sections: Any,
) -> Run:
    """A run of eight layers of blocks, of which affinities are temporary."""
    return make_run(
        directory,
        predict={"block_size": [1, 20, 20], "tile_size": list(tile), "keep_affinities": keep},
        fragments={"context": [1, 6, 6], "seed_distance": seed_distance, "boundary_threshold": 0.98},
        **{"segment": {"thresholds": [0.3]}, **sections},
    )


def stored_affinities(run: Run) -> int:
    """Files of affinities that are there."""
    return int(PredictTask(run).open().array.present().sum())


def results(run: Run) -> dict[str, np.ndarray]:
    """All that the stages wrote, but for the affinities."""
    found = everything(run)
    del found["affinities"]
    return found


def blocks_done(run: Run, stage: str) -> int:
    """Blocks that the last command computed of a stage."""
    return int(read_json(run.summary)["stages"][stage]["blocks_done"])
