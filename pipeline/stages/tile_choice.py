"""Decides how prediction uses the machine: engine, device, number of workers, and the tile that fits into memory."""

from __future__ import annotations

import math

import torch
from funlib.geometry import Coordinate

from ..engine.blocks.grid import BlockGrid
from ..engine.blocks.process import GIGABYTE, memory_per_worker
from ..networks import EmbeddingNetwork, best_engine, build_network, choose_device
from ..run import Run
from .inference import working_bytes
from .prediction_plan import PredictionPlan, device_name
from .tiles import tile_blocks
from .turned_prediction import turned_read_box, views_of

MEMORY_FRACTION = 0.5
"""Of the memory, what a tile may need: the rest is for what libraries keep, and for blocks under way."""
UNKNOWN_DEVICE = 8 * GIGABYTE
"""Bytes that a GPU is taken to have if only the workers see it."""
WORTH_COMPILING = 1 << 24
"""Voxels of a region above which OpenVINO pays: it takes a second or two to compile for each shape of input."""


def decide_plan(run: Run, grid: BlockGrid, engine: str, tile: Coordinate | None = None) -> PredictionPlan:
    """Decide how prediction uses this machine, or the jobs of the cluster.

    Args:
        run: the run.
        grid: of the chunks.
        engine: what runs the network.
        tile: chunks along z, y, x, if that is decided already.

    Raises:
        UserError: the configured device is not here.
    """
    device = device_name(run.config, engine)
    return PredictionPlan(engine, device, tile or choose_tile(run, grid, device), most_workers(run, device))


def device_of_workers(run: Run, name: str) -> torch.device:
    """The device of a name that workers will use; of jobs that ask for GPUs one of those, whatever this machine has.

    Raises:
        UserError: the configured device is not here.
    """
    cluster = run.config.cluster
    if name == "auto" and cluster.executor == "slurm" and cluster.slurm.job("predict").gpus is not None:
        return torch.device("cuda")
    return choose_device(name, "predict.device")


def choose_engine(run: Run, grid: BlockGrid) -> str:
    """What runs the network best on this region."""
    return (
        best_engine(device_of_workers(run, run.config.predict.device)) if grid.box.size > WORTH_COMPILING else "torch"
    )


def most_workers(run: Run, device: str) -> int:
    """Workers at a time: as configured; of those that share this machine's GPUs, `predict.workers_per_gpu` on each."""
    workers = run.config.cluster.workers_of("predict")
    if run.config.cluster.executor != "local" or device_of_workers(run, device).type == "cpu":
        return workers
    gpus = torch.cuda.device_count() if device == "auto" else 1
    return min(workers, gpus * run.config.predict.workers_per_gpu)


def choose_tile(run: Run, grid: BlockGrid, device: str) -> Coordinate:
    """Blocks along z, y, x that make up a tile: as configured, or for `auto` what the memory allows.

    On a GPU the shape of a tile decides how results are rounded. So there it depends on the config, the region and the
    kind of GPU alone, and neither on the memory that is free at the moment nor on the number of workers.

    Args:
        run: the run; of the network, only the config is looked at.
        grid: of the blocks, which are chunks.
        device: name of what computes.
    """
    predict = run.config.predict
    if predict.tile_size != "auto":
        return Coordinate(-(-t // b) for t, b in zip(predict.tile_size, grid.block_size, strict=True))
    network, computes = _network_without_weights(run), device_of_workers(run, device)
    views = views_of(predict.augment, network)
    means = 0 if len(views) == 1 or computes.type == "cuda" else 2 * 4 * len(predict.offsets)
    return tile_blocks(
        grid,
        read=lambda box: turned_read_box(network, box, predict.offsets, views),
        bytes_of=lambda read, shape: (
            working_bytes(network, read, shape, predict.offsets, computes.type) + means * math.prod(shape)
        ),
        room=_tile_memory(run, computes),
        workers=1 if computes.type == "cuda" else run.config.cluster.workers_of("predict"),
    )


def _network_without_weights(run: Run) -> EmbeddingNetwork:
    """The network that predicts, as shapes only."""
    with torch.device("meta"):
        return build_network(run.config.predicting.network)


def _tile_memory(run: Run, device: torch.device) -> int:
    """Bytes that a tile may need."""
    config = run.config
    if config.predict.memory is not None:
        return int(config.predict.memory * GIGABYTE)
    if device.type == "cpu":
        return int(memory_per_worker(config.cluster, "predict") * MEMORY_FRACTION)
    whole = torch.cuda.mem_get_info(device)[1] if torch.cuda.is_available() else UNKNOWN_DEVICE
    return int(whole * MEMORY_FRACTION) // config.predict.workers_per_gpu
