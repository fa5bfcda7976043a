"""A run directory as the pipeline leaves it, made of simple shapes in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_window import Window, make_browsed_run, opened_window
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter
from scipy.spatial import cKDTree

from pipeline.config import parse_config
from pipeline.run import Run, update_summary
from pipeline.viewer import write_report
from pipeline.volumes import create_volume

SHAPE = (30, 96, 128)
VOXEL_SIZE = (40, 8, 8)
OFFSET = (400, 80, 16)
SEGMENTED = ((6, 16, 16), (30, 96, 128))
THRESHOLDS = (0.25, 0.5, 0.75)


@pytest.fixture
def empty_run(tmp_path: Path) -> Run:
    """A run that nothing has been done for."""
    return make_run(tmp_path)


@pytest.fixture
def raw_run(empty_run: Run) -> Run:
    """A run whose unlabelled raw volume has been imported."""
    write_raw(empty_run)
    return empty_run


@pytest.fixture
def finished_run(raw_run: Run) -> Run:
    """A run after all stages, with labels, scores, and the curves of both networks."""
    finish(raw_run)
    return raw_run


@pytest.fixture(scope="session")
def untouched_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with its report, for tests that only read."""
    run = make_run(tmp_path_factory.mktemp("viewer"))
    write_raw(run)
    finish(run)
    write_report(run)
    return run


@pytest.fixture(scope="session")
def browsed_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with everything that a browser can be shown, for tests that only read."""
    return make_browsed_run(tmp_path_factory.mktemp("browsed") / "run")


@pytest.fixture(scope="module")
def window(browsed_run: Run) -> Iterator[Window]:
    """Its page in a browser, one for all tests of a module: others stop the viewer's server."""
    with opened_window(browsed_run) as opened:
        yield opened


def make_run(folder: Path) -> Run:
    """A run below a folder, with a name that HTML and shells have to quote."""
    document: dict[str, Any] = {
        "run_directory": str(folder / "demo & <more>"),
        "volumes": {
            "sources": {"em": {"kind": "phantom", "shape": SHAPE}},
            "train": [{"source": "em", "z_share": [0.0, 0.6]}],
            "validate": {"source": "em", "z_share": [0.6, 1.0]},
            "segment": {"source": "em", "begin": SEGMENTED[0], "end": SEGMENTED[1]},
        },
        "teacher": {"network": {"name": "section_unet", "widths": [16, 32, 64]}},
        "student": {"network": {"name": "section_unet", "widths": [4, 6, 8]}},
    }
    return Run(parse_config(document))


def write_raw(run: Run) -> None:
    """Import dark membranes between bright neurites."""
    labels, _ = neurites()
    membrane = maximum_filter(labels, (1, 3, 3)) != minimum_filter(labels, (1, 3, 3))
    noise = np.random.default_rng(0).normal(0, 12, SHAPE)
    raw = 190 - 110 * gaussian_filter(membrane.astype(float), (0.3, 1, 1)) + noise
    place: dict[str, Any] = {"voxel_size": VOXEL_SIZE, "offset": OFFSET, "chunks": (16, 64, 64)}
    volume = create_volume(run.volume, "raw", SHAPE, np.uint8, **place)
    volume.write(volume.box, np.clip(raw, 0, 255).astype(np.uint8))


def finish(run: Run) -> None:
    """Write what training and the block-wise stages write."""
    labels, fragments = neurites()
    volume = create_volume(
        run.volume, "labels", SHAPE, np.uint64, voxel_size=VOXEL_SIZE, offset=OFFSET, chunks=(16, 64, 64)
    )
    volume.write(volume.box, labels)
    part = tuple(slice(b, e) for b, e in zip(*SEGMENTED, strict=True))
    segmented = {"fragments": fragments[part]}
    for threshold, merged in zip(THRESHOLDS, (fragments, labels + 50, labels // 2 + 80), strict=True):
        segmented[f"segmentation/{threshold:.2f}"] = merged[part]
    segmented["affinities"] = affinities(labels)[(slice(None), *part)]
    offset = [o + b * s for o, b, s in zip(OFFSET, SEGMENTED[0], VOXEL_SIZE, strict=True)]
    for name, data in segmented.items():
        volume = create_volume(
            run.volume, name, data.shape, data.dtype, voxel_size=VOXEL_SIZE, offset=offset, chunks=(12, 64, 64)
        )
        volume.write(volume.box, data)
    write_curves(run)
    write_results(run)


@cache
def neurites() -> tuple[np.ndarray, np.ndarray]:
    """Labels and their over-segmentation, (z, y, x) uint64: Voronoi cells along z, and those of twice as many seeds."""
    random = np.random.default_rng(1)
    seeds = random.uniform(0, SHAPE[1:], (40, 2))
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1).astype(float)
    drifted = grid[..., 1:] + 6 * np.sin(grid[..., :1] / 6)
    labels = cKDTree(seeds).query(drifted)[1].astype(np.uint64) + 1
    parts = cKDTree(random.uniform(0, SHAPE[1:], (25, 2))).query(drifted)[1].astype(np.uint64)
    fragments = labels * 100 + parts
    return labels, fragments


def affinities(labels: np.ndarray) -> np.ndarray:
    """(3, z, y, x) uint8: 255 inside neurites, blurred towards their borders."""
    channels = []
    for axis in range(3):
        same = labels == np.roll(labels, 1, axis=axis)
        channels.append(gaussian_filter(same.astype(np.float32), (0.3, 1, 1)))
    return (np.stack(channels) * 255).astype(np.uint8)


def write_curves(run: Run) -> None:
    """A teacher without and a student with distillation terms; the student was resumed and its last line is cut off."""
    for role in ("teacher", "student"):
        lines = []
        for iteration in [*range(10, 2001, 10), *range(1510, 2001, 10)]:
            loss = 0.1 + np.exp(-iteration / 300) + 0.02 * np.sin(iteration)
            record = {"iteration": iteration, "loss": loss, "learning_rate": 1e-3, "seconds": 0.5}
            if role == "student":
                record |= {"affinity": loss * 0.7, "node": loss * 0.2, "edge": loss * 0.1}
            lines.append(json.dumps(record))
            if iteration % 250 == 0:
                measures = {"affinity_loss": loss, "voi_split": loss * 2, "voi_merge": loss, "voi_sum": loss * 3}
                lines.append(json.dumps({"iteration": iteration, "validation": measures}))
        run.network_directory(role).mkdir(parents=True)
        (run.network_directory(role) / "curves.jsonl").write_text("\n".join(lines) + '\n{"iteration": 20')


def write_results(run: Run) -> None:
    """Scores of a sweep whose best threshold is 0.50, and what two stages say of themselves."""
    scores = {}
    for threshold in np.arange(0.05, 1, 0.05):
        split, merge = 0.1 + 2.1 * (1 - threshold) ** 3, 0.08 + 1.5 * threshold**3
        scores[f"{threshold:.2f}"] = {
            "voi_split": round(split, 6),
            "voi_merge": round(merge, 6),
            "voi_sum": round(split + merge, 6),
            "adapted_rand_error": round(0.05 + (threshold - 0.5) ** 2, 6),
        }
    stages = {
        "predict": {
            "blocks_done": 12,
            "blocks_failed": 0,
            "blocks_skipped": 3,
            "seconds": 8.25,
            "voxels_per_second": 431234,
            "peak_worker_memory": 612 * 2**20,
        },
        "agglomerate": {"blocks_done": 1, "blocks_failed": 0, "blocks_skipped": 0},
    }
    update_summary(run, scores=scores, best={"threshold": 0.5, **scores["0.50"]}, stages=stages)
