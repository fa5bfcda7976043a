"""What conversion into a run costs: against the reader of the source alone, and with two workers against one.

    python benchmarks/conversion.py [--quick] [--rounds 3]

Sources are an HDF5 file with gzip and TIFF stacks, with deflate and without compression, of the same voxels: real ones
of `EMDISTILL_DATA` if there are any, tiled, else smoothed noise. `reader` reads the blocks of the conversion one after
another in a process of its own, and drops them; `blocks` converts them so. A worker reads one block while another is
encoded, flushed and read back, which takes about as long: with two processors a single worker comes near to the reader,
and two workers do no more than the processors allow. What a second worker brings is therefore told with one processor
for each: `1 worker, 1 CPU` against `2 workers` on two.

The contenders take turns. Told are millions of voxels per second of wall clock, from the end of the first blocks to the
end of the last (starting workers and opening files are left out), and of processor time, of workers from their start;
the medians of the rounds. On a machine that computes other things meanwhile, two workers get a larger share of it than
one, and only processor time means anything.

The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
import tifffile
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SIDE = 1024
"""Pixels along the edges of a section."""
CONTENDERS = ("reader", "blocks", "1 worker", "1 worker, 1 CPU", "2 workers")


def voxels(sections: int) -> np.ndarray:
    """(sections, SIDE, SIDE) uint8."""
    folder = os.environ.get("EMDISTILL_DATA")
    if folder and (Path(folder) / "fib25_unlabelled.h5").exists():
        with h5py.File(Path(folder) / "fib25_unlabelled.h5") as file:
            tile = file["raw"][:]
    else:
        noise = np.random.default_rng(0).normal(size=(128, 256, 256))
        smooth = ndimage.gaussian_filter(noise, 2) * 900 + 4 * noise
        tile = np.clip(128 + smooth, 0, 255).astype(np.uint8)
    wanted = (sections, SIDE, SIDE)
    return np.tile(tile, [-(-w // extent) for w, extent in zip(wanted, tile.shape, strict=True)])[
        tuple(map(slice, wanted))
    ]


def write_sources(folder: Path, sections: int) -> dict[str, Path]:
    """The same voxels in three files."""
    raw = voxels(sections)
    paths = {"HDF5, gzip": folder / "gzip.h5", "TIFF, deflate": folder / "deflate.tif", "TIFF": folder / "plain.tif"}
    with h5py.File(paths["HDF5, gzip"], "w") as file:
        file.create_dataset("raw", data=raw, chunks=(16, 128, 128), compression="gzip")
    tifffile.imwrite(paths["TIFF, deflate"], raw, compression="zlib", photometric="minisblack")
    tifffile.imwrite(paths["TIFF"], raw, photometric="minisblack")
    return paths


def document(directory: Path, path: Path, workers: int) -> dict[str, Any]:
    """The config of a run that imports a file."""
    return {
        "run_directory": str(directory),
        "volumes": {
            "sources": {"a": {"kind": "file", "path": str(path), "voxel_size": [8, 8, 8]}},
            "segment": {"source": "a"},
        },
        "student": {"network": {"name": "section_unet"}, "distillation": None},
        "cluster": {"executor": "local", "workers": workers},
    }


def spent() -> float:
    """Seconds of processor time of this process and of those that it waited for."""
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def read_alone(config: dict[str, Any]) -> dict[str, float]:
    """Read the blocks of a conversion one after another."""
    from pipeline.config import parse_config
    from pipeline.engine.blocks.process import limit_threads
    from pipeline.run import Run
    from pipeline.stages.convert import ConvertTask, read_block

    task = ConvertTask(Run(parse_config(config)), "a", "raw")
    limit_threads(1)
    with task.opener.open() as opened:
        read, grid = opened.datasets["raw"], task.grid
        read_block(read, grid.block(0).box)
        before, started = spent(), time.perf_counter()
        size = sum(np.array(read_block(read, grid.block(index).box)).size for index in range(1, len(grid)))
        return {"wall": size / (time.perf_counter() - started) / 1e6, "cpu": size / (spent() - before) / 1e6}


def convert_here(config: dict[str, Any]) -> dict[str, float]:
    """Convert in this process, block after block, as a worker does."""
    from pipeline.config import parse_config
    from pipeline.engine.blocks.process import limit_threads
    from pipeline.run import Run
    from pipeline.stages.convert import ConvertTask
    from pipeline.volumes import limit_storage_threads

    task = ConvertTask(Run(parse_config(config)), "a", "raw")
    limit_storage_threads(1)
    limit_threads(1)
    task.prepare()
    with task.process() as process_block:
        process_block(task.grid.block(0))
        before, started, size = spent(), time.perf_counter(), 0
        for index in range(1, len(task.grid)):
            process_block(task.grid.block(index))
            size += task.grid.block(index).box.size
        return {"wall": size / (time.perf_counter() - started) / 1e6, "cpu": size / (spent() - before) / 1e6}


def convert(config: dict[str, Any]) -> dict[str, float]:
    """Import as a user does, and see from the files when blocks were done."""
    from pipeline.config import parse_config
    from pipeline.run import Run
    from pipeline.stages.convert import conversions
    from pipeline.stages.importing import ensure_imported

    run = Run(parse_config(config))
    ensure_imported(run)
    (task,) = conversions(run, "a")
    array, grid = task.open().array, task.grid
    ends = sorted(
        max(array.file(position).stat().st_mtime for position, _ in array.shards_in(grid.block(index).box))
        for index in range(len(grid))
    )
    first = run.config.cluster.workers - 1
    blocks = len(ends) - 1 - first
    voxels_per_block = grid.box.size / len(grid)
    busy = sum(json.loads(path.read_text())["busy"] for path in (task.folder / "workers").glob("*.json"))
    return {
        "wall": blocks * voxels_per_block / (ends[-1] - ends[first]) / 1e6,
        "busy": grid.box.size / busy / 1e6,
        "cpu": grid.box.size / spent() / 1e6,
    }


def one_round(contender: str, folder: Path, path: Path) -> dict[str, float]:
    """A contender in a process of its own."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    config = document(folder / "run", path, 2 if contender.startswith("2") else 1)
    command = [sys.executable, __file__, "--contender", contender, "--config", json.dumps(config)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quarter of the voxels, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--config", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contender:
        processors = sorted(os.sched_getaffinity(0))[: 1 if options.contender.endswith("CPU") else 2]
        os.sched_setaffinity(0, processors)
        work = {"reader": read_alone, "blocks": convert_here}.get(options.contender, convert)
        print(json.dumps(work(json.loads(options.config))))
        return
    sections, rounds = (96, 1) if options.quick else (384, options.rounds)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        sources = write_sources(Path(folder), sections)
        for name, path in sources.items():
            measured: dict[str, list[dict[str, float]]] = {contender: [] for contender in CONTENDERS}
            for _ in range(rounds):
                for contender in CONTENDERS:
                    measured[contender].append(one_round(contender, Path(folder), path))
            results[name] = {
                contender: {kind: round(median(each[kind] for each in times), 1) for kind in times[0]}
                for contender, times in measured.items()
            }
            reader, _, one, alone, two = (results[name][contender]["wall"] for contender in CONTENDERS)
            cpu = results[name]["blocks"]["cpu"] / results[name]["reader"]["cpu"]
            results[name]["blocks / reader, CPU"] = round(cpu, 2)
            results[name]["1 worker / reader"] = round(one / reader, 2)
            results[name]["2 workers / 1 worker, 1 CPU"] = round(two / alone, 2)
            print(f"{name}: {results[name]}", flush=True)
    print(json.dumps({"voxels": sections * SIDE * SIDE, "rounds": rounds, **results}))


if __name__ == "__main__":
    main()
