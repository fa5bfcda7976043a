"""Affinities made from labels, and a run that has them as if a network had predicted them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from pipeline.config import SectionUnetConfig, dump_config, parse_config
from pipeline.engine.tracking.progress import begin, write_record
from pipeline.networks import build_network, save_checkpoint
from pipeline.run import Run
from pipeline.stages.predict import PredictTask
from pipeline.volumes import create_volume

NETWORK = SectionUnetConfig(sections=3, widths=(4, 6), embedding_channels=4)
"""Any: it never predicts."""
BLOCK, CONTEXT = (128, 128, 128), 8
"""Those of configs/fib25.json."""
SOFTNESS, BLOBS, GRAIN = 0.7, 0.5, 0.08
"""Standard deviation in voxels of the smoothing, and those of the correlated and of the plain noise."""
BLOB_SIZE = 2.0


def label_affinities(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Affinities like those of a network, (3, z, y, x) uint8: soft membranes, uncertain in places.

    Args:
        labels: (z, y, x) ids; 0 is background.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    membrane = ndimage.minimum_filter(labels, 3) != ndimage.maximum_filter(labels, 3)
    labels = np.where(membrane, 0, labels)
    channels = []
    for axis in range(3):
        same = (labels == np.roll(labels, 1, axis)) & (labels > 0)
        same[(slice(None),) * axis + (0,)] = True
        soft = ndimage.gaussian_filter(same.astype(np.float32), SOFTNESS)
        blobs = ndimage.gaussian_filter(rng.standard_normal(labels.shape, np.float32), BLOB_SIZE)
        noise = BLOBS * blobs / blobs.std() * (1 - soft) + GRAIN * rng.standard_normal(labels.shape, np.float32)
        channels.append(np.rint(255 * np.clip(soft + noise, 0, 1)).astype(np.uint8))
    return np.stack(channels)


@dataclass(frozen=True)
class Settings:
    """What our stages go by.

    Attributes:
        block: voxels along z, y, x.
        voxel_size: nanometres along z, y, x.
        fragments: the section of the config.
        threshold: of merging.
        storage_format: 2 is what zarr 2 reads, and with it volara, the classic chain and stock waterz.
    """

    block: tuple[int, ...] = BLOCK
    voxel_size: tuple[float, ...] = (10, 10, 10)
    fragments: Mapping[str, Any] = field(default_factory=lambda: {"context": [CONTEXT] * 3})
    threshold: float = 0.5
    storage_format: int = 3


def make_run(directory: Path, affinities: np.ndarray, settings: Settings, workers: int) -> Run:
    """A run whose affinities are there as if a network had predicted them."""
    shutil.rmtree(directory, ignore_errors=True)
    shape = affinities.shape[1:]
    document: dict[str, Any] = {
        "run_directory": str(directory.resolve()),
        "volumes": {
            "sources": {"made": {"kind": "phantom", "shape": shape, "voxel_size": list(settings.voxel_size)}},
            "segment": {"source": "made"},
        },
        "student": {"network": dump_config(NETWORK), "distillation": None},
        "predict": {"block_size": list(settings.block)},
        "fragments": dict(settings.fragments),
        "segment": {"thresholds": [settings.threshold], "certainty": False},  # which the others do not make either
        "pyramid": {"raw": False, "fragments": False, "segmentation": False},
        "cluster": {"workers": workers},
        "storage": {"format": settings.storage_format},
    }
    run = Run(parse_config(document))
    torch.manual_seed(0)
    save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", build_network(NETWORK), 1, {})
    raw = create_volume(
        run.volume,
        "raw",
        shape,
        "uint8",
        voxel_size=settings.voxel_size,
        chunks=settings.block,
        storage_format=run.config.storage.format,
    )
    raw.write(raw.box, affinities[2])
    task = PredictTask(run)
    begin(task)
    output = task.open_output()
    for part in task.grid:
        output.write(part, affinities[(slice(None), *part.box.slices)])
    write_record(task, complete=True)
    run.save_config()
    return run
