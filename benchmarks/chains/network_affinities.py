"""Affinities of a network for the benchmark: the student of a config, trained briefly on labels, or ready-made."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.api import distill, import_data, open_run, predict
from pipeline.run import Run
from pipeline.volumes import open_volume


def run_of_config(config: Path, iterations: int, folder: Path, checkpoint: str | None = None) -> Run:
    """The run of a config in a folder of its own, with a student that learns from labels alone.

    Args:
        config: of a data set with labels, `configs/fib25.json` for example.
        iterations: of the training.
        folder: for everything that this makes.
        checkpoint: that predicts instead; nothing is trained then.
    """
    changes = {
        "run_directory": str(folder / f"{config.stem}_{iterations}"),
        "student.distillation": None,
        "student.training.iterations": iterations,
        "student.training.checkpoint_every": iterations,
        "student.training.validate_every": iterations,
        "predict.keep_affinities": "all",
        "predict.checkpoint": checkpoint,
    }
    return open_run(config, set=changes)


def network_affinities(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Affinities (3, z, y, x) uint8 of the segmented volume, and its labels (z, y, x); made only once."""
    if run.config.predict.checkpoint is None:
        distill(run)
    import_data(run)
    if not predict(run):
        raise RuntimeError(f"prediction failed, see {run.logs}")
    affinities = open_volume(run.volume, "affinities")
    labels = run.open_labels(run.config.volumes.segment.source)
    return affinities.array[:3], labels.read(affinities.box)
