"""How much of what a network can do prediction gets out of it, and what the choice of tiles and engines is worth.

    python benchmarks/predict.py --quick
    python benchmarks/predict.py

Four tables, each measured side by side in one run, in alternation, medians:

- pipeline: stage 02 with `--workers` processes (reading, network, affinities, encoding, flush, read-back), against as
  many processes that pass the same windows through the same engine and do nothing else. The start of workers is left
  out: two regions are predicted, and the difference of their voxels and times counts.
- tiles: the published tiling (84 x 268 x 268 voxels in, 56 x 56 x 56 out) against the tile that is chosen for
  one worker on this machine, same network and weights, one thread.
- engines: seconds per million voxels, one thread or a GPU, and how far their affinities lie from torch's in float32, in
  levels.

- student: its time per voxel over the teacher's, networks of `configs/fib25.json` (or `--student`, JSON), float32, one
  thread, for each engine; `student_over_teacher` is that of the faster one. The box is half a block of the config,
  quick, or a tile of four, so that what each network computes around it counts as it does in stage 02.
- int8: the student in eight bits over itself in float32, both on OpenVINO, if NNCF is installed, and how far its
  affinities lie apart, in levels.

Weights are random: speed does not depend on them. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from funlib.geometry import Coordinate
from prediction.against_forward import against_forward, texture

from pipeline.config import NEAREST_NEIGHBOURS, load_config
from pipeline.engine.blocks.grid import BlockGrid
from pipeline.engine.blocks.process import free_memory, keep_freed_memory
from pipeline.networks import (
    best_engine,
    build_engine,
    build_network,
    choose_device,
    compact,
    normalise_raw,
)
from pipeline.networks.eight_bits import quantise
from pipeline.stages.inference import Predictor, read_box, working_bytes
from pipeline.stages.tile_choice import MEMORY_FRACTION
from pipeline.stages.tiles import tile_blocks
from pipeline.volumes import Box, crop

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = Coordinate(56, 56, 56)
TABLES = ["engines", "student", "int8", "tiles", "pipeline"]
PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Scale:
    """How large the measurements are."""

    repeats: int
    small: tuple[int, int, int]
    large: tuple[int, int, int]
    tiled: tuple[int, int, int]
    published: int
    engine: tuple[int, int, int]
    pair: tuple[int, int, int]


FULL = Scale(3, (32, 1024, 1024), (96, 1024, 1024), (560, 5600, 5600), 4, (8, 768, 768), (128, 256, 256))
QUICK = Scale(1, (32, 256, 256), (64, 768, 768), (56, 224, 224), 2, (4, 128, 128), (64, 128, 128))


def pipeline_table(folder: Path, scale: Scale, engines: Sequence[str], workers: int) -> dict[str, dict[str, float]]:
    """The student through the stage and through the engine alone."""
    network, shapes = load_config(ROOT / "configs" / "fib25.json", []).student.network, (scale.small, scale.large)
    return {
        f"student, {engine}": against_forward(folder, network, shapes, engine, workers, scale.repeats)
        for engine in engines
    }


def tiling_table(scale: Scale, engine_name: str) -> dict[str, Any]:
    """The published tiling against a tile of a large region: voxels per second, and how far the results lie apart."""
    torch.manual_seed(0)
    network = compact(build_network("mala_tiny").eval(), NEAREST_NEIGHBOURS)
    predictor = Predictor(network, NEAREST_NEIGHBOURS, build_engine(engine_name, network, None, 1))
    region = Box(Coordinate(0, 0, 0), Coordinate(scale.tiled))
    blocks = BlockGrid(region, PUBLISHED, Coordinate(8, 8, 8), Coordinate(0, 0, 0))

    def bytes_of(read: Coordinate, shape: Coordinate) -> int:
        return working_bytes(network, read, shape, NEAREST_NEIGHBOURS, "cpu")

    blocks_per_tile = tile_blocks(blocks, predictor.read_box, bytes_of, int(free_memory() * MEMORY_FRACTION), workers=1)
    tile = blocks.merged(blocks_per_tile).block(0).box
    read = predictor.read_box(tile)
    raw = texture(read.shape)
    parts = list(itertools.islice(blocks.blocks_in(tile), scale.published))
    predictor.quantised(
        crop(raw, predictor.read_box(parts[0].box).relative_to(read)), parts[0].box
    )  # graphs are compiled
    predictor.quantised(raw, tile)
    ours_seconds, published_seconds, levels = [], [], []
    for _ in range(scale.repeats):
        ours, seconds = timed(predictor.quantised, raw, tile)
        ours_seconds.append(seconds / tile.size)
        for part in parts:
            seen = crop(raw, predictor.read_box(part.box).relative_to(read))
            published, seconds = timed(predictor.quantised, seen, part.box)
            published_seconds.append(seconds / part.box.size)
            levels.append(np.abs(crop(ours, part.box.relative_to(tile)).astype(int) - published))
    return {
        "tile": list(tile.shape),
        "read": list(read.shape),
        "voxels_per_second": 1 / median(ours_seconds),
        "published_voxels_per_second": 1 / median(published_seconds),
        "tiling_speedup": median(published_seconds) / median(ours_seconds),
        "most_levels_apart": int(max(apart.max() for apart in levels)),
        "share_apart": float(np.mean([(apart > 0).mean() for apart in levels])),
    }


def timed(work: Callable[..., np.ndarray], *arguments: Any) -> tuple[np.ndarray, float]:
    """A result, and the seconds that it took."""
    started = time.perf_counter()
    result = work(*arguments)
    return result, time.perf_counter() - started


def engine_table(scale: Scale, device: torch.device) -> dict[str, dict[str, dict[str, float]]]:
    """Seconds per million voxels of one thread, or of a GPU, margins included in what is computed but not in what
    counts.
    """
    engines = sorted({"torch", best_engine(device)}, reverse=True)
    config = load_config(ROOT / "configs" / "fib25.json", [])
    assert config.network_teacher is not None
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name, settings in {"teacher": config.network_teacher.network, "student": config.student.network}.items():
        torch.manual_seed(0)
        network = compact(build_network(settings).to(device).eval(), NEAREST_NEIGHBOURS)
        box = Box.of_shape(scale.engine)
        raw = texture(read_box(network, box, NEAREST_NEIGHBOURS).shape)
        predictors = {
            f"{engine}, {precision}": Predictor(network, NEAREST_NEIGHBOURS, build_engine(engine, network, dtype, 1))
            for engine in engines
            for precision, dtype in PRECISIONS.items()
        }
        table[name] = compared(predictors, raw, box, scale.repeats)
    return table


def student_table(scale: Scale, engines: Sequence[str], settings: str | None) -> dict[str, dict[str, float]]:
    """Seconds per million voxels of teacher and student, in alternation."""
    config = load_config(ROOT / "configs" / "fib25.json", [])
    assert config.network_teacher is not None
    student = config.student.network if settings is None else build_network(json.loads(settings)).config
    box = Box.of_shape(scale.pair)
    table: dict[str, dict[str, float]] = {}
    for engine in engines:
        predictors = {}
        for name, network in (("teacher", config.network_teacher.network), ("student", student)):
            torch.manual_seed(0)
            built = compact(build_network(network).eval(), NEAREST_NEIGHBOURS)
            predictors[name] = Predictor(built, NEAREST_NEIGHBOURS, build_engine(engine, built, None, 1))
        raws = {name: texture(predictor.read_box(box).shape) for name, predictor in predictors.items()}
        seconds: dict[str, list[float]] = {name: [] for name in predictors}
        for repeat in range(scale.repeats + 1):  # in the first one graphs are compiled
            for name, predictor in predictors.items():
                _, taken = timed(predictor.quantised, raws[name], box)
                seconds[name] += [taken / box.size * 1e6] if repeat else []
        table[engine] = {name: median(taken) for name, taken in seconds.items()}
        table[engine]["student_over_teacher"] = table[engine]["student"] / table[engine]["teacher"]
    return table


def eight_bits_table(scale: Scale, settings: str | None) -> dict[str, float]:
    """The student in eight bits against itself in float32, both on OpenVINO: seconds per million voxels in alternation,
    and how far its affinities lie from those in float32, in levels.
    """
    config = load_config(ROOT / "configs" / "fib25.json", [])
    torch.manual_seed(0)
    student = config.student.network if settings is None else build_network(json.loads(settings)).config
    network, box = compact(build_network(student).eval()), Box.of_shape(scale.pair)
    exact = Predictor(network, NEAREST_NEIGHBOURS, build_engine("openvino", network, None, 1))
    raw = texture(exact.read_box(box).shape)
    reach = network.section_reach or 0
    shown = torch.from_numpy(normalise_raw(raw[: 2 * reach + 8 * network.sections_together]))[None, None]
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "int8.xml"
        quantise(network, [window[None] for window in network.windows(shown)], graph)
        rounded = Predictor(network, NEAREST_NEIGHBOURS, build_engine("openvino", network, None, 1, graph))
        table = compared({"float32": exact, "int8": rounded}, raw, box, scale.repeats + 2)
    seconds = {name: row["seconds_per_megavoxel"] for name, row in table.items()}
    return {**seconds, **table["int8"], "int8_over_float32": seconds["int8"] / seconds["float32"]}


def compared(predictors: dict[str, Predictor], raw: np.ndarray, box: Box, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds per million voxels, and the levels between the results and the first one's."""
    results = {name: predictor.quantised(raw, box).astype(int) for name, predictor in predictors.items()}
    first = next(iter(results.values()))
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    for _ in range(repeats):
        for name, predictor in predictors.items():
            started = time.perf_counter()
            predictor.quantised(raw, box)
            seconds[name].append(time.perf_counter() - started)
    return {
        name: {
            "seconds_per_megavoxel": median(seconds[name]) / box.size * 1e6,
            "most_levels_apart": float(np.abs(result - first).max()),
            "share_apart": float((result != first).mean()),
        }
        for name, result in results.items()
    }


def main() -> None:
    """Measure and print."""
    options = parse()
    torch.set_num_threads(1)
    keep_freed_memory()
    scale = QUICK if options.quick else FULL
    best = best_engine(torch.device("cpu"))
    engines = sorted({"torch", best}, reverse=True)
    result: dict[str, Any] = {"quick": options.quick}
    if "engines" in options.table:
        result["engines"] = engine_table(scale, choose_device(options.device, "--device"))
    if "student" in options.table:
        result["student"] = student_table(scale, engines, options.student)
        fastest = min(result["student"].values(), key=lambda seconds: seconds["student"])
        result["student_over_teacher"] = fastest["student_over_teacher"]
    if "int8" in options.table:
        result["int8"] = eight_bits_table(scale, options.student)
    if "tiles" in options.table:
        result["tiles"] = tiling_table(scale, best)
        result["tiling_speedup"] = result["tiles"]["tiling_speedup"]
    if "pipeline" in options.table:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            result["pipeline"] = pipeline_table(Path(folder), scale, engines, options.workers)
        for by in ("", "_by_processor_time"):
            result[f"pipeline_over_forward{by}"] = {
                name: rates[f"stage_over_forward{by}"] for name, rates in result["pipeline"].items()
            }
    print(json.dumps(result, indent=1))
    print(json.dumps(result))


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small volumes, one repeat, no table of engines")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="of the table of engines: cpu, cuda or auto")
    parser.add_argument("--folder", help="where volumes are put; default: the system's temporary folder")
    parser.add_argument("--table", action="append", choices=TABLES, help="repeatable; default: all that can be made")
    parser.add_argument("--student", metavar="NETWORK", help="another network than the config's, as JSON")
    options = parser.parse_args()
    left_out = {"engines"} if options.quick else set()
    if importlib.util.find_spec("nncf") is None:
        left_out.add("int8")
    options.table = options.table or [table for table in TABLES if table not in left_out]
    return options


if __name__ == "__main__":
    main()
