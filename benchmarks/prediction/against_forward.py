"""Stage 02 against the bare network: processes that pass the same windows to the same engine, and do nothing else.

    python benchmarks/prediction/against_forward.py CONFIG TILES

is such a process. It says when it is ready, begins when its input is closed, and says how much processor time it took.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from funlib.geometry import Coordinate

from pipeline.config import NEAREST_NEIGHBOURS, NetworkConfig, dump_config, load_config, parse_config
from pipeline.engine.blocks.process import keep_freed_memory
from pipeline.networks import (
    EmbeddingNetwork,
    build_engine,
    build_network,
    compact,
    save_checkpoint,
    sections_at_once,
)
from pipeline.run import Run, write_json
from pipeline.stages.by_script import predict
from pipeline.stages.inference import read_box
from pipeline.stages.predict import PredictTask
from pipeline.volumes import create_volume

ROOT = Path(__file__).resolve().parents[2]
BLOCK = Coordinate(32, 256, 256)
TILES_FORWARD = 3
"""That each process passes to its engine."""
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Took:
    """Time for a number of voxels.

    Attributes:
        voxels: computed, margins left out.
        wall: seconds, of all processes together.
        processor: seconds of user and system time, of all processes.
    """

    voxels: int
    wall: float
    processor: float

    def minus(self, other: Took) -> Took:
        """What is left without another."""
        return Took(self.voxels - other.voxels, self.wall - other.wall, self.processor - other.processor)


def texture(shape: Sequence[int]) -> np.ndarray:
    """(z, y, x) uint8, as smooth as EM."""
    coarse = np.random.default_rng(0).integers(0, 200, [-(-extent // 4) for extent in shape], dtype=np.uint8)
    noise = np.random.default_rng(1).integers(0, 56, shape, dtype=np.uint8)
    fine = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    return fine[tuple(slice(extent) for extent in shape)] + noise


def make_run(folder: Path, network: NetworkConfig, shape: Sequence[int], engine: str, **cluster: Any) -> Run:
    """A run over a whole raw volume, with random weights."""
    document = {
        "run_directory": str(folder),
        "volumes": {"sources": {"a": {"kind": "phantom"}}, "segment": {"source": "a"}},
        "student": {"network": dump_config(network), "distillation": None},
        "predict": {"block_size": list(BLOCK), "skip_empty": False, "engine": engine},
        "cluster": cluster,
    }
    run = Run(parse_config(document))
    raw = create_volume(run.volume, "raw", shape, "uint8", voxel_size=(8, 8, 8), chunks=(64, 128, 128))
    raw.write(raw.box, texture(shape))
    torch.manual_seed(0)
    save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", build_network(network), 1, {})
    return run


def stage_took(folder: Path, network: NetworkConfig, shape: Shape, engine: str, workers: int) -> Took:
    """Stage 02 from an empty directory."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        run = make_run(Path(place), network, shape, engine, executor="local", workers=workers)
        started, before = time.perf_counter(), _processor_time()
        assert predict(run)
        return Took(math.prod(shape), time.perf_counter() - started, _processor_time() - before)


def _processor_time() -> float:
    """Seconds of this process and of all that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def forward_took(folder: Path, network: NetworkConfig, shape: Shape, engine: str, workers: int) -> Took:
    """As many processes that do nothing but pass the windows of the same tiles to the engine."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        run = make_run(Path(place), network, shape, engine, executor="local", workers=workers)
        task = PredictTask(run)
        tiles = min(TILES_FORWARD, len(task.grid) // workers)
        write_json(Path(place) / "only_forward.json", dump_config(run.config))
        command = [sys.executable, __file__, str(Path(place) / "only_forward.json"), str(tiles)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            for _ in range(workers)
        ]
        for process in processes:
            _time_once_ready(process)
        started = time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        processor = sum(_time_once_ready(process) for process in processes)
        wall = time.perf_counter() - started
        for process in processes:
            process.wait()
        return Took(tiles * workers * task.grid.block(0).box.size, wall, processor)


def _time_once_ready(process: subprocess.Popen[bytes]) -> float:
    """Wait until a process writes a line: the processor time that it has used since it was ready."""
    assert process.stdout is not None
    return float(process.stdout.readline())


def only_forward(config: Path, tiles: int) -> None:
    """Pass a number of tiles to the engine of a run."""
    torch.set_num_threads(1)
    keep_freed_memory()
    task = PredictTask(Run(load_config(config)))
    network = compact(task.load_network(), NEAREST_NEIGHBOURS)
    engine = build_engine(task.engine, network, None, 1)
    box = task.grid.block(0).box
    windows = parts_of(network, read_box(network, box, NEAREST_NEIGHBOURS).shape)
    engine(windows[0])
    print(0.0, flush=True)
    sys.stdin.read()
    before = time.process_time()
    for _ in range(tiles):
        for part in windows:
            engine(part)
    print(time.process_time() - before, flush=True)


def parts_of(network: EmbeddingNetwork, read: Coordinate) -> list[torch.Tensor]:
    """Windows of the passes that a tile takes."""
    if network.section_reach is None:
        return [torch.rand(1, 1, *read)]
    together = network.stem[0]
    at_once = sections_at_once(read[1:], torch.device("cpu"), together) // together
    return [part.contiguous() for part in network.windows(torch.rand(1, 1, *read)).split(at_once)]


def against_forward(
    folder: Path, network: NetworkConfig, shapes: tuple[Shape, Shape], engine: str, workers: int, repeats: int
) -> dict[str, float]:
    """Voxels per second of the stage and of the engine alone, in alternation, medians; and per second of a processor.

    Args:
        folder: for volumes, which are removed.
        network: with random weights.
        shapes: of two regions; the difference counts, so that the start of workers does not.
        engine: its name.
        workers: processes.
        repeats: of both.
    """
    stage, forward = [], []
    for _ in range(repeats):
        small, large = (stage_took(folder, network, shape, engine, workers) for shape in shapes)
        stage.append(large.minus(small))
        forward.append(forward_took(folder, network, shapes[1], engine, workers))
    rates = {}
    for name, took in (("stage", stage), ("forward", forward)):
        rates[name] = median(one.voxels / one.wall for one in took)
        rates[f"{name}_by_processor_time"] = median(one.voxels / one.processor for one in took)
    for by in ("", "_by_processor_time"):
        rates[f"stage_over_forward{by}"] = rates[f"stage{by}"] / rates[f"forward{by}"]
    return rates


if __name__ == "__main__":
    only_forward(Path(sys.argv[1]), int(sys.argv[2]))
