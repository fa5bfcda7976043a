"""A run whose affinities are known: Voronoi cells with noisy boundaries, stored as if they had been predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from pipeline.config import SectionUnetConfig, dump_config, parse_config
from pipeline.engine.tracking.progress import begin, write_record
from pipeline.networks import build_network, save_checkpoint
from pipeline.rag import open_rag
from pipeline.run import CERTAINTY, Run
from pipeline.stages.by_script import chosen_thresholds
from pipeline.stages.predict import PredictTask
from pipeline.volumes import create_volume, open_volume, volume_exists

NETWORK = SectionUnetConfig(sections=3, widths=(4, 6), embedding_channels=4)
SHAPE = (9, 42, 38)


def make_run(directory: Path, **sections: Any) -> Run:
    """A run with smooth random raw and an untrained network; the region begins at voxel (1, 2, 3).

    Args:
        directory: of the run.
        sections: of the config; and `shape`, that of raw, and `offset`, its place in nanometres.
    """
    shape, offset = sections.pop("shape", SHAPE), sections.pop("offset", (0, 0, 0))
    document: dict[str, Any] = {
        "run_directory": str(directory),
        "volumes": {"sources": {"a": {"kind": "phantom"}}, "segment": {"source": "a", "begin": [1, 2, 3]}},
        "student": {"network": dump_config(NETWORK), "distillation": None},
        "predict": {"block_size": [4, 16, 16], "tile_size": [4, 16, 16]},
        "fragments": {"context": [1, 6, 6], "seed_distance": 3},
        "agglomerate": {"context": [1, 6, 6]},
        "segment": {"thresholds": [0.3, 0.6]},
        "cluster": {"executor": "serial"},
    }
    for name, values in sections.items():
        document[name] = {**document.get(name, {}), **values}
    run = Run(parse_config(document))
    if not volume_exists(run.volume, "raw"):
        smooth = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=shape), (0.5, 2, 2))
        place: dict[str, Any] = {
            "voxel_size": (40, 8, 8),
            "offset": offset,
            "storage_format": run.config.storage.format,
        }
        raw = create_volume(run.volume, "raw", shape, "uint8", chunks=(4, 16, 16), **place)
        raw.write(raw.box, np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8))
        torch.manual_seed(5)
        save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", build_network(NETWORK), 1, {})
    return run


def store_affinities(run: Run) -> np.ndarray:
    """Write the affinities of Voronoi cells in place of predicted ones; (3, z, y, x) uint8."""
    task = PredictTask(run)
    begin(task)
    affinities = voronoi_affinities(tuple(task.grid.region.shape))
    output = task.open_output()
    for block in task.grid:
        output.write(block, affinities[(slice(None), *block.box.slices)])
    write_record(task, complete=True)
    return affinities


def voronoi_affinities(shape: tuple[int, ...]) -> np.ndarray:
    """High inside cells, low between them, both noisy."""
    rng = np.random.default_rng(7)
    cells = voronoi_cells(shape, rng)
    affinities = []
    for axis in range(3):
        same = cells == np.roll(cells, 1, axis)
        affinities.append(np.where(same, rng.uniform(0.6, 1.0, shape), rng.uniform(0.0, 0.5, shape)))
    return np.round(np.stack(affinities) * 255).astype(np.uint8)


def voronoi_cells(shape: tuple[int, ...], rng: np.random.Generator | None = None) -> np.ndarray:
    """Numbers 0 to 11 of the cells."""
    points = (rng or np.random.default_rng(7)).uniform(0, 1, (12, 3)) * np.array(shape)
    grid = np.stack(np.meshgrid(*(np.arange(extent) for extent in shape), indexing="ij"), axis=-1)
    cells: np.ndarray = ((grid[..., None, :] - points) ** 2 * np.array([9, 1, 1])).sum(axis=-1).argmin(axis=-1)
    return cells


def stored(run: Run, dataset: str) -> np.ndarray:
    """A whole dataset."""
    volume = open_volume(run.volume, dataset)
    return volume.read(volume.box)


def everything(run: Run) -> dict[str, np.ndarray]:
    """All that the stages wrote, by name."""
    segmentations = [f"segmentation/{threshold:.2f}" for threshold in chosen_thresholds(run)]
    arrays = {name: stored(run, name) for name in ("affinities", "fragments", *segmentations)}
    arrays |= {CERTAINTY: stored(run, CERTAINTY)} if volume_exists(run.volume, CERTAINTY) else {}
    arrays |= {path.name: np.load(path) for path in sorted(run.luts.glob("*.npy"))}
    with open_rag(run.config.rag, run.directory) as store:
        nodes, edges = store.read_nodes(), store.read_edges()
    arrays |= {f"nodes.{name}": getattr(nodes, name) for name in ("id", "centre", "size", "begin", "end")}
    arrays |= {f"edges.{name}": getattr(edges, name) for name in ("u", "v", "count", "affinity_sum", "score")}
    return arrays


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """Bit by bit."""
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
