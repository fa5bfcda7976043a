"""The score over several watershed settings is that of the product's own stages under each of them."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from gain.scoring import BOUNDARY_THRESHOLDS, SEEDS, mean_over_watersheds

from pipeline.config import parse_config
from pipeline.engine.tracking.progress import begin, write_record
from pipeline.evaluation import evaluate
from pipeline.networks import build_network, save_checkpoint
from pipeline.run import Run
from pipeline.stages.by_script import agglomerate, extract_fragments
from pipeline.stages.predict import PredictTask
from pipeline.volumes import create_volume

SHAPE = (8, 40, 40)
NETWORK = {"name": "section_unet", "sections": 1, "widths": [2, 2]}


def boxes() -> np.ndarray:
    """Four objects, (z, y, x) uint64."""
    labels = np.ones(SHAPE, np.uint64)
    labels[:, 20:] += np.uint64(1)
    labels[:, :, 17:] += np.uint64(2)
    return labels


def noisy_affinities(labels: np.ndarray) -> np.ndarray:
    """(3, z, y, x) uint8, with a weak wall that merges at high thresholds."""
    rng = np.random.default_rng(3)
    channels = []
    for axis in range(3):
        same = labels == np.roll(labels, 1, axis)
        channels.append(np.where(same, rng.uniform(0.55, 1, SHAPE), rng.uniform(0, 0.6, SHAPE)))
    return np.round(np.stack(channels) * 255).astype(np.uint8)


def labelled_run(directory: Path, fragments: dict[str, Any]) -> Run:
    """A run whose volume is one block, with labels and stored affinities."""
    document: dict[str, Any] = {
        "run_directory": str(directory),
        "volumes": {"sources": {"a": {"kind": "phantom"}}, "segment": {"source": "a"}},
        "student": {"network": NETWORK, "distillation": None},
        "predict": {"block_size": list(SHAPE)},
        "fragments": fragments,
        "evaluate": {"minimum_size": 0},
        "cluster": {"executor": "serial"},
    }
    run = Run(parse_config(document))
    for name, dtype, array in (
        ("raw", "uint8", np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE)),
        ("labels", "uint64", boxes()),
    ):
        volume = create_volume(run.volume, name, SHAPE, dtype, voxel_size=(8, 8, 8), chunks=SHAPE)
        volume.write(volume.box, array)
    network = build_network(NETWORK)
    save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", network, 1, {})
    task = PredictTask(run)
    begin(task)
    task.open("r+").write(task.grid.box, noisy_affinities(boxes()))
    write_record(task, complete=True)
    return run


def test_it_is_the_mean_of_what_the_stages_score(tmp_path: Path) -> None:
    staged = []
    for index, (threshold, seeds) in enumerate(product(BOUNDARY_THRESHOLDS, SEEDS)):
        run = labelled_run(tmp_path / str(index), {"boundary_threshold": threshold, **seeds})
        assert extract_fragments(run) and agglomerate(run)
        staged.append(evaluate(run)["best"])
    scores = mean_over_watersheds(labelled_run(tmp_path / "mean", {}))
    assert len({score["voi_sum"] for score in staged}) > 1  # the settings matter here
    for name in ("voi_split", "voi_merge", "voi_sum", "adapted_rand_error"):
        assert scores[name] == pytest.approx(mean(score[name] for score in staged), abs=2e-6)
