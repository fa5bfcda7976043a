"""What exports cost: processor time, wall clock, memory, bytes and files of each target of `08_export.py`.

    python benchmarks/export.py [--side 150] [--workers 2] [--out runs/export]

The volume is FIB-25 of `EMDISTILL_DATA`, raw and labels, continued by mirrored copies up to the wanted side (375 is
52.7 Mvoxel); without it, the synthetic phantom. Affinities are made of the labels, with noise, in place of predicted
ones, so that there are fragments, a graph and segments of real shapes. Each target is a command of its own; of meshes
and skeletons, what they add to a volume that is there. Processor time is that of the command and all its workers. Then
a command that meshes is killed (SIGKILL) with half of the pieces done, again with the first file of meshes done, and
goes on; its files must be those of the command that was left alone.

A run in `--out` that is segmented already is exported again; the exports are deleted at the end, unless `--keep`.
The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.api import agglomerate, extract_fragments  # noqa: E402
from pipeline.config import PhantomSource, SectionUnetConfig, dump_config, parse_config  # noqa: E402
from pipeline.datasets.phantom import Phantom  # noqa: E402
from pipeline.engine.tracking.progress import Progress, begin, progress_of, write_record  # noqa: E402
from pipeline.networks import build_network, save_checkpoint  # noqa: E402
from pipeline.run import Run, read_summary  # noqa: E402
from pipeline.stages.agglomerate import agglomeration  # noqa: E402
from pipeline.stages.importing import ensure_imported  # noqa: E402
from pipeline.stages.predict import PredictTask  # noqa: E402
from pipeline.volumes import Box  # noqa: E402

NETWORK = SectionUnetConfig(sections=3, widths=(4, 6), embedding_channels=4)
VOXEL_SIZE = (10.0, 10.0, 10.0)
THRESHOLD = 0.4
TERAVOXEL = 1e12
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "precomputed": ("precomputed", ()),
    "meshes": ("precomputed", ("--meshes",)),
    "skeletons": ("precomputed", ("--skeletons",)),
    "ngff": ("ngff", ()),
    "webknossos": ("webknossos", ()),
    "pychunkedgraph": ("pychunkedgraph", ()),
}
"""By name: target, and further options. Those of one target share a place, so that each adds to what is there."""


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        cpu: seconds of processors, of the command and its workers.
        wall: seconds.
        memory: bytes, of the worker that needed most.
        size, files: of what it wrote at the place of the export.
        temporary: bytes that it keeps in the run, so that it can go on when killed.
    """

    cpu: float
    wall: float
    memory: int
    size: int
    files: int
    temporary: int


def raw_and_labels(side: int) -> tuple[np.ndarray, np.ndarray]:
    """(side, side, side) uint8 and uint64."""
    path = Path(os.environ.get("EMDISTILL_DATA", "")) / "fib25_train.h5"
    if not path.is_file():
        box = Box.of_shape((side, side, side))
        source = PhantomSource(shape=(side, side, side), voxel_size=VOXEL_SIZE)
        read = Phantom(source).read(box)
        return read["raw"], read["labels"].astype(np.uint64)
    with h5py.File(path) as file:
        return mirrored(file["raw"][:], side), mirrored(file["labels"][:].astype(np.uint64), side)


def mirrored(array: np.ndarray, side: int) -> np.ndarray:
    """A cube, cut from an array, or continued by mirrored copies of it."""
    array = array[:side, :side, :side]
    return np.pad(array, [(0, side - extent) for extent in array.shape], mode="symmetric")


def make_run(directory: Path, side: int, block: int, workers: int) -> Run:
    """A run that is agglomerated, from raw and labels in a file."""
    document: dict[str, Any] = {
        "run_directory": str(directory.resolve()),
        "volumes": {
            "sources": {
                "a": {
                    "kind": "file",
                    "path": str(directory.resolve().with_suffix(".h5")),
                    "raw": "raw",
                    "labels": "labels",
                    "voxel_size": list(VOXEL_SIZE),
                }
            },
            "segment": {"source": "a"},
        },
        "student": {"network": dump_config(NETWORK), "distillation": None},
        "predict": {"block_size": [block] * 3, "tile_size": [block] * 3},
        "segment": {"thresholds": [THRESHOLD]},
        "cluster": {"executor": "local", "workers": workers},
    }
    run = Run(parse_config(document))
    if (directory / "config.json").exists() and progress_of(agglomeration(run)) is Progress.DONE:
        return run
    directory.parent.mkdir(parents=True, exist_ok=True)
    raw, labels = raw_and_labels(side)
    with h5py.File(directory.with_suffix(".h5"), "w") as file:
        for name, array in (("raw", raw), ("labels", labels)):
            file.create_dataset(name, data=array, chunks=(64, 64, 64), compression="gzip", compression_opts=1)
    ensure_imported(run)
    torch.manual_seed(0)
    save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", build_network(NETWORK), 1, {})
    store_affinities(run, labels)
    run.save_config()
    if not (extract_fragments(run) and agglomerate(run)):
        raise SystemExit("the run could not be made")
    return run


def store_affinities(run: Run, labels: np.ndarray) -> None:
    """Write noisy affinities of labels as if a network had predicted them."""
    task = PredictTask(run)
    begin(task)
    output = task.open_output()
    for block in task.grid:
        output.write(block, affinities_of(labels, block.box, np.random.default_rng(block.index)))
    write_record(task, complete=True)


def affinities_of(labels: np.ndarray, box: Box, rng: np.random.Generator) -> np.ndarray:
    """(3, z, y, x) uint8, from 0.7 where both voxels have a label, the same; else to 0.3."""
    padded = np.pad(
        labels[tuple(slice(max(0, b - 1), e) for b, e in zip(box.begin, box.end, strict=True))],
        [(int(b == 0), 0) for b in box.begin],
    )
    inner = padded[1:, 1:, 1:]
    channels = []
    for axis in range(3):
        neighbour = padded[tuple(slice(0, -1) if axis == a else slice(1, None) for a in range(3))]
        noise = 0.3 * rng.random(inner.shape, np.float32)
        channels.append(np.where((inner == neighbour) & (inner > 0), 1 - noise, noise))
    return np.asarray(np.rint(255 * np.stack(channels)), np.uint8)


def command_of(run: Run, target: str, to: Path, options: Sequence[str]) -> list[str]:
    """The command of an export."""
    script = ROOT / "workflows" / "08_export.py"
    start = [sys.executable, str(script), str(run.directory / "config.json"), "--target", target, "--to", str(to)]
    return [*start, "--threshold", str(THRESHOLD), *options]


def files_below(folder: Path) -> dict[Path, Path]:
    """All files, by path inside the folder."""
    return {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}


def measure(run: Run, name: str, to: Path) -> Cost:
    """Export to a place, and see what that took."""
    target, options = TARGETS[name]
    run.summary.unlink(missing_ok=True)
    before, kept = set(files_below(to)), kept_bytes(run)
    started = time.monotonic()
    process = subprocess.Popen(command_of(run, target, to, options))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"{name} failed")
    new = [path for inside, path in files_below(to).items() if inside not in before]
    stages = [stage for stage in read_summary(run)["stages"].values() if stage["blocks_done"]]
    return Cost(
        cpu=usage.ru_utime + usage.ru_stime,
        wall=wall,
        memory=max(stage["peak_worker_memory"] for stage in stages),
        size=sum(path.stat().st_size for path in new),
        files=len(new),
        temporary=kept_bytes(run) - kept,
    )


def kept_bytes(run: Run) -> int:
    """Bytes of the pieces of meshes and skeletons that a run keeps."""
    return sum(path.stat().st_size for path in run.tracking.rglob("*.pieces"))


def killed_and_resumed(run: Run, expected: Path, to: Path) -> dict[str, Any]:
    """Kill a command that meshes, twice, and compare what the third one has made in the end."""
    for path in run.tracking.glob("mesh_*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    pieces = math.ceil(len(PredictTask(run).chunk_grid) / 2)
    command = command_of(run, "precomputed", to, ["--arrays", "segmentation", "--meshes"])
    moments: list[Callable[[], int]] = [
        lambda: int(len(list(run.tracking.rglob("*.pieces"))) >= pieces),
        lambda: len(list((to / "segmentation" / "mesh").glob("*.shard"))),
    ]
    for moment in moments:
        process = subprocess.Popen(command)
        while process.poll() is None and not moment():
            time.sleep(0.01)
        process.kill()
        process.wait()
    subprocess.run(command, check=True)
    wanted, found = (files_below(folder / "segmentation" / "mesh") for folder in (expected, to))
    same = wanted.keys() == found.keys() and all(
        path.read_bytes() == found[inside].read_bytes() for inside, path in wanted.items()
    )
    return {"files": len(found), "equal": same}


def table(costs: dict[str, Cost], voxels: int) -> str:
    """Markdown: what was measured, and what a teravoxel would take."""
    factor = TERAVOXEL / voxels
    lines = ["| | processor s | wall s | worker | written | files | kept | teravoxel | |"]
    lines.append("|---|" + "---:|" * 8)
    for name, cost in costs.items():
        measured = f"{cost.cpu:.0f} | {cost.wall:.0f} | {cost.memory / 2**20:.0f} MiB | {cost.size / 1e6:.1f} MB"
        large = f"{cost.cpu * factor / 3600:.0f} h | {cost.size * factor / 1e9:.0f} GB"
        lines.append(f"| {name} | {measured} | {cost.files} | {cost.temporary / 1e6:.1f} MB | {large} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=150, help="voxels along each axis (default: 150)")
    parser.add_argument("--block", type=int, default=64, help="voxels of a block along each axis (default: 64)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/export"))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--keep", action="store_true", help="do not delete what was exported")
    options = parser.parse_args(arguments)
    run = make_run(options.out / "run", options.side, options.block, options.workers)
    costs: dict[str, Cost] = {}
    for name in options.targets:
        costs[name] = measure(run, name, options.out / TARGETS[name][0])
        print(name, json.dumps(costs[name].__dict__), file=sys.stderr, flush=True)
    result: dict[str, Any] = {"voxels": options.side**3, "targets": {n: c.__dict__ for n, c in costs.items()}}
    if "meshes" in costs:
        result["killed"] = killed_and_resumed(run, options.out / "precomputed", options.out / "killed")
    if not options.keep:
        for place in {*(TARGETS[name][0] for name in options.targets), "killed"}:
            shutil.rmtree(options.out / place, ignore_errors=True)
    print(table(costs, options.side**3))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
