"""Runs whose student learns from affinities on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline.config import Offset
from pipeline.run import Run
from pipeline.training.sampling.samples import Arrays, SampleMaker
from pipeline.training.steps.training_setup import Training
from pipeline.volumes import create_volume

OFFSETS: tuple[Offset, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -4, 0), (0, 0, -4))
"""The channels of what is stored."""
STILL = 'augment={"elastic": null, "noise": 0.0, "intensity_scale": [1.0, 1.0], "intensity_shift": [0.0, 0.0]}'
"""Augmentation that turns patches and changes no voxel."""


def taught_by(*paths: Path, source: str = "p", **entry: object) -> str:
    """The setting that has affinities of the source teach."""
    section = {"paths": [str(path) for path in paths], **entry}
    return "teacher=" + json.dumps({"kind": "affinities", "affinities": {source: section}})


def store(folder: Path, values: np.ndarray, **attributes: object) -> Path:
    """Affinities (k, z, y, x) on the phantom's voxels."""
    volume = create_volume(
        folder,
        "affinities",
        values.shape,
        values.dtype,
        voxel_size=(40, 8, 8),
        chunks=(8, 32, 32),
        attributes=attributes,
    )
    volume.write(volume.box, values)
    return folder


def batch_of(run: Run, iteration: int = 0) -> Arrays:
    """A batch of the student's training."""
    training = Training(run, "student")
    with SampleMaker(training.sampling(training.build_network())) as maker:
        return maker.batch(iteration)
