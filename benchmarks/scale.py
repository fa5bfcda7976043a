"""From affinities to a segmentation at growing sizes: time per voxel, memory of workers, memory of the global stage.

    python benchmarks/scale.py --out runs/scale --workers 2

No network takes part: affinities come from the synthetic phantom, computed block by block like everything else, so that
any size can be had. Every size has blocks of the same shape. The last line of the output is one JSON object:
`time_per_voxel_growth` and `worker_memory_growth`, the largest size over the smallest, per stage and (time) of all, and
`global_bytes_per_edge`, what the driver's memory grows by per edge of the graph.

    python benchmarks/scale.py --graph 1e8 --out runs/scale_graph [--maximum-score 0.5]

Only the agglomeration, of a synthetic graph (`synthetic_graph.py`) of a hundredth, a tenth and all of so many edges:
seconds and peak memory of driver and workers, and how much of the graph reaches each level of regions.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import synthetic_graph
import torch

from pipeline.config import PhantomSource, SectionUnetConfig, dump_config, parse_config
from pipeline.datasets.phantom import Phantom
from pipeline.datasets.phantom.hashing import hash_coordinates
from pipeline.engine.tracking.progress import begin, write_record
from pipeline.networks import build_network, save_checkpoint
from pipeline.rag import open_rag
from pipeline.run import Run, read_summary
from pipeline.stages.predict import PredictTask
from pipeline.terminal import tracked
from pipeline.volumes import Box, create_volume, open_volume

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("03_extract_fragments.py", "04_agglomerate.py", "05_segment.py")
BLOCK = (100, 200, 200)
SIZES = ((4, 2, 2), (4, 4, 4), (16, 4, 4))
"""Blocks along z, y, x: 64, 256 and 1024 Mvoxel."""
QUICK_BLOCK = (32, 96, 96)
QUICK_SIZES = ((2, 2, 2), (4, 4, 2), (4, 4, 4))
NETWORK = SectionUnetConfig(sections=3, widths=(4, 6), embedding_channels=4)
STAGES = ("fragments", "rag", "agglomerate", "segment")
NOISE = 0.25
"""Width of the noise on the affinities."""
SOFTNESS = 30.0
"""Distance to a membrane in nanometres at which affinities are high."""


@dataclass(frozen=True)
class Size:
    """What was measured at one size.

    Attributes:
        voxels: of the volume.
        edges: rows of the graph.
        seconds: per stage.
        memory: bytes per stage, of the worker that needed most, or of the driver for `agglomerate`.
    """

    voxels: int
    edges: int
    seconds: dict[str, float]
    memory: dict[str, int]


def make_run(directory: Path, block: Sequence[int], blocks: Sequence[int], workers: int) -> Run:
    """A run on a phantom of so many blocks along each axis."""
    shape = [count * extent for count, extent in zip(blocks, block, strict=True)]
    document: dict[str, Any] = {
        "run_directory": str(directory.resolve()),
        "volumes": {
            "sources": {"phantom": {"kind": "phantom", "shape": shape}},
            "segment": {"source": "phantom"},
        },
        "student": {"network": dump_config(NETWORK), "distillation": None},
        "predict": {"block_size": list(block)},
        "fragments": {"context": [8, 16, 16]},
        "segment": {"thresholds": [0.5]},
        "cluster": {"workers": workers},
    }
    return Run(parse_config(document))


def phantom_affinities(run: Run, box: Box) -> np.ndarray:
    """Affinities of a box, (3, z, y, x) uint8: high inside neurites, 0 across membranes, noisy."""
    source = run.config.volumes.sources["phantom"]
    assert isinstance(source, PhantomSource)
    cells = Phantom(source).cells(box.grow((1, 1, 1), (0, 0, 0)))
    depth = np.clip(cells.distance_to_membrane / SOFTNESS, 0, 1)
    inner = (slice(1, None),) * 3
    channels = []
    for axis in range(3):
        neighbour = tuple(slice(0, -1) if axis == a else slice(1, None) for a in range(3))
        same = cells.nearest[inner] == cells.nearest[neighbour]
        channels.append(np.where(same, np.minimum(depth[inner], depth[neighbour]), 0))
    affinities = np.stack(channels)
    noise = _noise(box, 3)
    return np.rint(255 * np.clip(affinities * (1 - NOISE) + NOISE * noise, 0, 1)).astype(np.uint8)


def _noise(box: Box, channels: int) -> np.ndarray:
    """Uniform in [0, 1), one byte of a hash per channel, (channels, z, y, x) float32."""
    z, y, x = (np.arange(low, high) for low, high in zip(box.begin, box.end, strict=True))
    hashed = hash_coordinates(1, 0, z[:, None, None], y[:, None], x)
    return np.stack([((hashed >> np.uint64(8 * k)) & np.uint64(255)).astype(np.float32) / 256 for k in range(channels)])


def store_affinities(run: Run, workers: int) -> None:
    """Write affinities as if a network had predicted them, and one channel as raw, so that no block counts as empty."""
    torch.manual_seed(0)
    save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", build_network(NETWORK), 1, {})
    source = run.config.volumes.sources["phantom"]
    assert isinstance(source, PhantomSource)
    block = run.config.predict.write_block
    create_volume(run.volume, "raw", source.shape, "uint8", voxel_size=source.voxel_size, chunks=block)
    task = PredictTask(run)
    begin(task)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        pending = [pool.submit(_store_block, task, index) for index in range(len(task.grid))]
        for future in tracked(pending, "affinities", len(pending), "blocks"):
            future.result()
    write_record(task, complete=True)


def _store_block(task: PredictTask, index: int) -> None:
    block = task.grid.block(index)
    affinities = phantom_affinities(task.run, block.box)
    task.open_output().write(block, affinities)
    open_volume(task.run.volume, "raw", "r+").write(block.box, affinities[2])


def measure(run: Run) -> Size:
    """Run the stages one after another, each with the machine to itself."""
    config = run.directory / "config.json"
    run.save_config()
    for script in SCRIPTS:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, str(ROOT / "workflows" / script), str(config)], check=True, env=environment)
    stages = read_summary(run)["stages"]
    with open_rag(run.config.rag, run.directory) as store:
        edges = store.counts().edges
    return Size(
        voxels=PredictTask(run).grid.box.size,
        edges=edges,
        seconds={name: stages[name]["seconds"] for name in STAGES},
        memory={name: stages[name]["peak_worker_memory"] for name in STAGES},
    )


def ratios(sizes: Sequence[Size]) -> dict[str, Any]:
    """The largest size over the smallest."""
    small, large = min(sizes, key=lambda size: size.voxels), max(sizes, key=lambda size: size.voxels)

    def growth(of_large: float, of_small: float) -> float:
        return round((of_large / large.voxels) / (of_small / small.voxels), 3)

    time = {name: growth(large.seconds[name], small.seconds[name]) for name in STAGES}
    time["all"] = growth(sum(large.seconds.values()), sum(small.seconds.values()))
    workers = [name for name in STAGES if name != "agglomerate"]
    grown = large.memory["agglomerate"] - small.memory["agglomerate"]
    return {
        "time_per_voxel_growth": time,
        "worker_memory_growth": {name: round(large.memory[name] / small.memory[name], 3) for name in workers},
        "global_bytes_per_edge": round(grown / (large.edges - small.edges), 1),
    }


def table(sizes: Sequence[Size]) -> str:
    """Markdown: seconds per Mvoxel, and memory, by stage and size."""
    lines = ["| stage | " + " | ".join(f"{size.voxels / 1e6:.0f} Mvoxel" for size in sizes) + " |"]
    lines.append("| --- |" + " --- |" * len(sizes))
    for name in STAGES:
        cells = [
            f"{1e6 * size.seconds[name] / size.voxels:.3f} s/Mvoxel, {size.memory[name] / 2**20:.0f} MiB"
            for size in sizes
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    totals = [f"{1e6 * sum(size.seconds.values()) / size.voxels:.3f} s/Mvoxel" for size in sizes]
    lines.append("| **all** | " + " | ".join(totals) + " |")
    lines.append("| edges | " + " | ".join(f"{size.edges / 1e6:.2f} M" for size in sizes) + " |")
    return "\n".join(lines)


def measure_graphs(directory: Path, edges: float, workers: int, maximum_score: float) -> None:
    """Synthetic graphs of growing size; a line of JSON each, the last one with the growth from first to last."""
    first: dict[str, Any] = {}
    for part in (0.01, 0.1, 1.0):
        found = synthetic_graph.measure(directory, part * edges, workers, {"maximum_score": maximum_score})
        first = first or found
        print(json.dumps(found), flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    growing = ("processor_seconds_per_million_edges", "peak_driver_memory_mb", "peak_worker_memory_mb")
    growth = {f"{name}_growth": round(found[name] / first[name], 3) for name in growing}
    summary = {name: found[name] for name in ("edges", "seconds", *growing)}
    print(json.dumps({**summary, **growth, "maximum_score": maximum_score, "workers": workers}))


def main() -> None:
    """Every size from an empty directory, which is deleted before the next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/scale"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sizes", type=int, default=len(SIZES), choices=(2, 3), help="how many, the smallest first")
    parser.add_argument("--quick", action="store_true", help="19 Mvoxel at most: checks the benchmark only")
    parser.add_argument("--graph", type=float, help="edges of a synthetic graph: measure agglomeration alone")
    parser.add_argument("--maximum-score", type=float, default=1.0, help="agglomerate.maximum_score of --graph")
    options = parser.parse_args()
    if options.graph is not None:
        measure_graphs(options.out, options.graph, options.workers, options.maximum_score)
        return

    block, shapes = (QUICK_BLOCK, QUICK_SIZES) if options.quick else (BLOCK, SIZES[: options.sizes])
    sizes = []
    for blocks in shapes:
        shutil.rmtree(options.out, ignore_errors=True)
        run = make_run(options.out, block, blocks, options.workers)
        store_affinities(run, options.workers)
        sizes.append(measure(run))
        print(json.dumps(sizes[-1].__dict__), file=sys.stderr, flush=True)
    shutil.rmtree(options.out, ignore_errors=True)
    print(table(sizes))
    print(json.dumps({"quick": options.quick, "workers": options.workers, **ratios(sizes)}))


if __name__ == "__main__":
    main()
