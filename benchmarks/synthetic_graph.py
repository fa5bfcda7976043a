"""A region adjacency graph of any size, made block by block, and how agglomeration does on it.

Fragments lie on a lattice, six edges each, as many as fragments of EM have. They belong to neurites of a few fragments'
width that run through the whole volume, along z in one layer and along x in the next, so that hardly any ends inside a
region: that is what is hard for linkage by regions. Contacts per edge (130 in the mean) and affinities are drawn from
distributions like those of fragments of FIB-25; a part of the edges within a neurite is as weak as a membrane.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config import SectionUnetConfig, dump_config, parse_config
from pipeline.datasets.phantom.hashing import hash_coordinates
from pipeline.engine.blocks.grid import Block
from pipeline.engine.tracking.progress import begin, write_record
from pipeline.networks import build_network, save_checkpoint
from pipeline.rag import EdgeTable, NodeTable
from pipeline.run import Run, read_summary
from pipeline.stages.graph_rows import edge_checksums, node_checksums
from pipeline.stages.linkage import LinkageTask, levels_of
from pipeline.stages.region_graph import RagTask, open_graph
from pipeline.terminal import tracked
from pipeline.volumes import create_volume

ROOT = Path(__file__).resolve().parents[1]
PITCH, PER_BLOCK = 16, 16
"""Voxels from fragment to fragment, and fragments along each axis of a block."""
NEIGHBOURS = ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 1, 0), (1, 0, 1))
EDGES_PER_BLOCK = len(NEIGHBOURS) * PER_BLOCK**3
LAYER, WIDTH = 24, 3
"""Fragments along y of a layer of parallel neurites, and across a neurite."""
WEAK = 0.08
"""Part of the edges within a neurite that are as weak as those across membranes."""
AGGLOMERATE = """
import sys
from pathlib import Path
from pipeline.config import load_config
from pipeline.engine.chain import run_stages
from pipeline.run import Run
from pipeline.stages.agglomerate import scoring_stages

run = Run(load_config(Path(sys.argv[1])))
sys.exit(0 if run_stages(run, scoring_stages(run), overwrite=False) else 1)
"""
"""What stage 04 does once the graph is there."""
REGION = 2 * PITCH * PER_BLOCK
NETWORK = SectionUnetConfig(sections=3, widths=(4, 6), embedding_channels=4)


def make_run(directory: Path, edges: float, workers: int, agglomerate: dict[str, Any]) -> Run:
    """A run whose graph will have about so many edges."""
    along = max(1, round((edges / EDGES_PER_BLOCK) ** (1 / 3)))
    blocks = [along, along, max(1, round(edges / EDGES_PER_BLOCK / along**2))]
    extents = [PITCH * PER_BLOCK * count for count in blocks]
    document: dict[str, Any] = {
        "run_directory": str(directory.resolve()),
        "volumes": {"sources": {"a": {"kind": "phantom", "shape": extents}}, "segment": {"source": "a"}},
        "student": {"network": dump_config(NETWORK), "distillation": None},
        "predict": {"block_size": [PITCH * PER_BLOCK] * 3, "skip_empty": False},
        "agglomerate": {"region_size": [REGION] * 3, **agglomerate},
        "rag": {"url": "files:///rag"},
        "cluster": {"workers": workers},
    }
    return Run(parse_config(document))


def store_graph(run: Run, workers: int) -> int:
    """Write the graph as if fragments had been; how many edges it has."""
    torch.manual_seed(0)
    save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", build_network(NETWORK), 1, {})
    shape = run.config.volumes.sources["a"].shape  # type: ignore[union-attr]
    create_volume(run.volume, "raw", shape, "uint8", voxel_size=(8, 8, 8), chunks=run.config.predict.write_block)
    task = RagTask(run)
    begin(task)
    total, checksums = 0, np.zeros(len(task.grid), np.uint64)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        stored = pool.map(store_block, [task] * len(task.grid), range(len(task.grid)), chunksize=8)
        for index, (rows, checksum) in enumerate(tracked(stored, "graph", len(task.grid), "blocks")):
            total += rows
            checksums[index] = checksum
    task.records.write_all(checksums)
    write_record(task, complete=True)
    run.save_config()
    return total


def store_block(task: RagTask, index: int) -> tuple[int, int]:
    """Write the nodes and edges of a block; how many edges, and the checksum of its rows."""
    block = task.grid.block(index)
    nodes, edges = nodes_of(task, block), edges_of(task, block)
    with open_graph(task.run) as store:
        store.write_block(index, nodes, edges)
    return len(edges), int(np.concatenate([node_checksums(nodes), edge_checksums(edges)]).sum())


def nodes_of(task: RagTask, block: Block) -> NodeTable:
    """The fragments of a block."""
    cells = cells_of(block)
    begin = cells * PITCH
    size = np.full(len(cells), PITCH**3, np.int64)
    return NodeTable(ids_of(task, cells), (begin + PITCH / 2) * 8.0, size, begin, begin + PITCH)


def edges_of(task: RagTask, block: Block) -> EdgeTable:
    """The edges of a block to the low side."""
    tables = []
    for stream, step in enumerate(NEIGHBOURS):
        high = cells_of(block)
        low = high - np.array(step)
        inside = (low >= 0).all(axis=1)
        high, low = high[inside], low[inside]
        draws = hash_coordinates(1, stream, *high.T)
        first, second, third = (((draws >> np.uint64(20 * k)) & np.uint64(0xFFFFF)) / 2**20 for k in range(3))
        count = np.maximum(1, np.rint(-130 * np.log1p(-first))).astype(np.int64)
        same = (neurite_of(high) == neurite_of(low)) & (second > WEAK)
        mean = np.where(same, 1 - 0.5 * third**3, 0.02 + 0.6 * third**2)
        total = np.rint(mean * count * 255) / 255  # uint8 affinities, so that scores are equal now and then
        total = np.rint(total * 2**26) / 2**26
        tables.append(EdgeTable.of(np.stack([ids_of(task, low), ids_of(task, high)], axis=1), count, total))
    return EdgeTable.concatenate(tables)


def cells_of(block: Block) -> np.ndarray:
    """(N, 3) int64, lattice positions of the fragments of a block, in the order of their ids."""
    steps = np.stack(np.meshgrid(*[np.arange(PER_BLOCK)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(steps + np.array(block.box.begin) // PITCH)


def ids_of(task: RagTask, cells: np.ndarray) -> np.ndarray:
    """(N,) uint64, the fragments at lattice positions."""
    block = np.ravel_multi_index((cells // PER_BLOCK).T, tuple(task.grid.shape))
    local = np.ravel_multi_index((cells % PER_BLOCK).T, (PER_BLOCK,) * 3)
    return np.asarray(block * task.grid.voxels_per_block + local + 1, np.uint64)


def neurite_of(cells: np.ndarray) -> np.ndarray:
    """(N,) uint64, the neurite of each fragment: of a layer, and of a winding tube in it."""
    z, y, x = cells.T
    layer = y // LAYER
    along, across = np.where(layer % 2, x, z), np.where(layer % 2, z, x)
    sway = np.rint(1.5 * np.sin(along / 9.0 + layer)).astype(np.int64)
    return hash_coordinates(2, 0, layer, (y % LAYER + sway) // WIDTH, (across + sway) // WIDTH)


def measure(directory: Path, edges: float, workers: int, agglomerate: dict[str, Any]) -> dict[str, Any]:
    """Agglomerate a graph of so many edges, made from nothing; what it took. The directory is deleted first."""
    shutil.rmtree(directory, ignore_errors=True)
    run = make_run(directory, edges, workers, agglomerate)
    began = time.monotonic()
    total = store_graph(run, workers)
    making = time.monotonic() - began
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started, before, driver_memory = time.monotonic(), _processor_seconds(), 0
    command = [sys.executable, "-c", AGGLOMERATE, str(run.directory / "config.json")]
    with subprocess.Popen(command, env=environment) as driver:
        while driver.poll() is None:
            driver_memory = max(driver_memory, _peak_of(driver.pid))
            time.sleep(0.05)
    if driver.returncode:
        raise SystemExit(f"agglomeration failed with exit status {driver.returncode}")
    seconds, processor = time.monotonic() - started, _processor_seconds() - before
    stages = {name: stage for name, stage in read_summary(run)["stages"].items() if name != "rag"}
    levels = levels_of(run, RagTask(run).grid)
    came = [_edges_that_came(LinkageTask(run, level)) for level in range(levels)] if levels > 1 else [[total]]
    return {
        "edges": total,
        "seconds": round(seconds, 1),
        "core_seconds_per_million_edges": round(1e6 * workers * seconds / total, 2),
        "processor_seconds_per_million_edges": round(1e6 * processor / total, 2),
        "peak_driver_memory_mb": round(driver_memory / 1e6),
        "peak_worker_memory_mb": round(max(stage["peak_worker_memory"] for stage in stages.values()) / 1e6),
        "edges_of_largest_region_by_level": [max(level) for level in came],
        "part_that_reaches_the_level": [round(sum(level) / total, 4) for level in came],
        "seconds_of_stages": {name: round(stage["seconds"], 1) for name, stage in stages.items()},
        "seconds_of_making_the_graph": round(making, 1),
    }


def _processor_seconds() -> float:
    """What processes that were started here have taken so far, with those that they have started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _edges_that_came(task: LinkageTask) -> list[int]:
    return [len(task.read(index).linked.target) for index in range(len(task.grid))]


def _peak_of(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return 0
