r"""One table from raw to a segmentation: hours of CPU cores, and of a GPU where there is one, that a teravoxel takes.

    python benchmarks/end_to_end.py --quick
    python benchmarks/end_to_end.py --tiles 2 2 2                      # the ready-made student
    python benchmarks/end_to_end.py --tiles 8 2 2 --large 1000 1000 1000
    python benchmarks/end_to_end.py --teacher-checkpoint runs/fib25/teacher/best.pt \
        --student-checkpoint runs/fib25/student/best.pt

The real workflows run on two boxes of a real volume, a smaller and a larger one; `--tiles` enlarges the volume with
mirrored copies, powers of two along z, y, x. Every rate is the difference between the two over the difference in
voxels, so that what a run costs once, above all the start of its processes, is left out. CPU time is user and system
time of the driver and all its workers, which other load on the machine hardly changes; wall time is that of this
machine with so many workers, and other load does lengthen it.

Every stage has its pyramid, and agglomeration is exact (`global`), by regions so small that both boxes have several of
them (without `--quick`): then its cost grows with the volume, as that of a teravoxel does. `--with-waterz` measures the
alternative beside it.

A teacher without a checkpoint (`--teacher-checkpoint random`) has random weights. How long it predicts does not depend
on them, but everything after that would, so that only its prediction is measured.

The last line of the output is one JSON object: `core_hours_per_teravoxel` (of all stages, of the student, or of the
teacher if it alone is measured), by network the same and `stages`; `student_over_teacher`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from pipeline.config import load_config
from pipeline.networks import build_network, save_checkpoint
from pipeline.rag import open_rag
from pipeline.run import Run, read_summary
from pipeline.volumes import create_volume

ROOT = Path(__file__).resolve().parents[1]
TERAVOXEL = 1e12
RANDOM = "random"
WATERZ = "agglomerate, waterz"
STAGES = ("predict", "fragments", "rag", "agglomerate, global", "segment")
"""In the order of work; all that a sum holds."""
BOXES = {
    "teacher": ((50, 250, 250), (100, 375, 500)),
    "student": ((200, 500, 500), (400, 1000, 1000)),
}
"""The smaller and the larger box of each network."""
QUICK_BOXES = {"teacher": ((50, 125, 250), (50, 250, 250)), "student": ((50, 250, 250), (200, 500, 500))}
REGION = (200, 250, 250)
"""Voxels of the regions in which agglomeration begins; with `--quick` there is one."""
GRAPH_ALONE = """
import json
import sys
from pathlib import Path
from pipeline.config import load_config
from pipeline.engine.chain import run_stages
from pipeline.run import Run
from pipeline.stages.region_graph import RagTask

run = Run(load_config(Path(sys.argv[1]), sys.argv[2:]))
sys.exit(0 if run_stages(run, [RagTask(run)], False) else 1)
"""


@dataclass(frozen=True)
class Cost:
    """Time that a stage took.

    Attributes:
        cpu: seconds of user and system time.
        wall: seconds.
    """

    cpu: float
    wall: float

    def minus(self, other: Cost) -> Cost:
        """This cost less another."""
        return Cost(self.cpu - other.cpu, self.wall - other.wall)

    def times(self, factor: float) -> Cost:
        """This cost multiplied by a factor."""
        return Cost(self.cpu * factor, self.wall * factor)


@dataclass(frozen=True)
class Passage:
    """One box from raw to segmentation.

    Attributes:
        voxels: of the box.
        edges: of its graph.
        costs: by stage.
    """

    voxels: int
    edges: int
    costs: dict[str, Cost]


class Workflows:
    """Runs the workflows of one run, and tells what each costs.

    Args:
        config: file of the config.
        settings: what differs from it, by dotted key.
    """

    def __init__(self, config: Path, settings: dict[str, Any]) -> None:
        self._config = config
        self.changes = [f"{key}={json.dumps(value)}" for key, value in settings.items()]

    def script(self, name: str, *flags: str, **changes: str) -> Cost:
        """Run a script; changes as `agglomerate__method="waterz"`."""
        more = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in changes.items()]
        arguments = [f"--set={change}" for change in (*self.changes, *more)]
        return self._run(str(ROOT / "workflows" / name), str(self._config), *arguments, *flags)

    def graph_alone(self) -> Cost:
        """Make the graph without scores; the script that agglomerates finds it done."""
        return self._run("-c", GRAPH_ALONE, str(self._config), *self.changes)

    @staticmethod
    def _run(*arguments: str) -> Cost:
        """CPU time of a Python process and everything that it starts, and its time on the wall."""
        before, began = _cpu_of_children(), time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        return Cost(_cpu_of_children() - before, time.perf_counter() - began)


def _cpu_of_children() -> float:
    """Seconds of all processes that this one has waited for, and of those that they have."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def passage(network: str, checkpoint: str, shape: Sequence[int], raw: Path, options: argparse.Namespace) -> Passage:
    """Run all stages on a box from an empty directory; with a teacher of random weights, prediction alone."""
    directory = options.out.resolve() / "run"
    shutil.rmtree(directory, ignore_errors=True)
    random_weights = checkpoint == RANDOM
    if random_weights:
        checkpoint = str(random_teacher(options.config, options.out))
    settings: dict[str, Any] = {
        "run_directory": str(directory),
        "volumes": {
            "sources": {"large": {"kind": "file", "path": str(raw), "raw": "raw"}},
            "segment": {"source": "large", "begin": [0, 0, 0], "end": list(shape)},
        },
        "predict.checkpoint": checkpoint if checkpoint.startswith("pretrained:") else str(Path(checkpoint).resolve()),
        "predict.network": network,
        "predict.autocast": "auto",
        "predict.engine": options.engine,
        "segment.thresholds": [0.5],
        "cluster.workers": options.workers,
    }
    if not options.quick:
        settings["agglomerate.region_size"] = list(REGION)
    workflows = Workflows(options.config, settings)
    workflows.script("import_data.py")
    costs = {"predict": workflows.script("02_predict_blockwise.py")}
    if random_weights:
        return Passage(math.prod(shape), 0, costs)
    costs["fragments"] = workflows.script("03_extract_fragments.py")
    costs["rag"] = workflows.graph_alone()
    costs["agglomerate, global"] = workflows.script("04_agglomerate.py")
    costs["segment"] = workflows.script("05_segment.py")
    run = Run(load_config(options.config, workflows.changes))
    assert all(not stage["blocks_failed"] for stage in read_summary(run)["stages"].values())
    with open_rag(run.config.rag, run.directory) as store:
        edges = store.counts().edges
    if options.with_waterz:
        costs[WATERZ] = workflows.script("04_agglomerate.py", "--overwrite", agglomerate__method="waterz")
    return Passage(math.prod(shape), edges, costs)


def random_teacher(config: Path, folder: Path) -> Path:
    """A checkpoint of the config's teacher with random weights."""
    teacher = load_config(config, []).network_teacher
    assert teacher is not None
    path = folder.resolve() / "random_teacher.pt"
    torch.manual_seed(0)
    save_checkpoint(path, build_network(teacher.network), 1, {})
    return path


def enlarged(raw: Path, tiles: Sequence[int], folder: Path) -> Path:
    """A volume with mirrored copies of itself behind it, powers of two along z, y, x."""
    with h5py.File(raw) as file:
        voxels = file["raw"][:]
        voxel_size = tuple(float(extent) for extent in file.attrs["voxel_size_nm"])
    for axis in np.repeat((0, 1, 2), [count.bit_length() - 1 for count in tiles]):
        voxels = np.concatenate([voxels, np.flip(voxels, axis)], axis)
    container = folder.resolve() / "raw.zarr"
    shutil.rmtree(container, ignore_errors=True)
    volume = create_volume(container, "raw", voxels.shape, voxels.dtype, voxel_size=voxel_size, chunks=(64, 128, 128))
    volume.write(volume.box, voxels)
    return container


def per_teravoxel(small: Passage, large: Passage) -> dict[str, Cost]:
    """Seconds of each stage."""
    factor = TERAVOXEL / (large.voxels - small.voxels)
    return {name: cost.minus(small.costs[name]).times(factor) for name, cost in large.costs.items()}


def total(costs: dict[str, Cost]) -> Cost:
    """Of all stages, with one agglomeration."""
    summed = [costs[name] for name in STAGES if name in costs]
    return Cost(sum(cost.cpu for cost in summed), sum(cost.wall for cost in summed))


def table(results: dict[str, dict[str, Cost]], gpu: bool) -> str:
    """Markdown: core hours, hours on the wall and hours of the GPU by stage and network."""
    units = ["CPU-hours", "hours here"] + (["GPU-hours"] if gpu else [])
    heads = [f"{network}, {unit}" for network in results for unit in units]
    lines = ["| stage | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    for name in (*STAGES, WATERZ):
        if any(name in costs for costs in results.values()):
            cells = [cell for costs in results.values() for cell in _cells(name, costs.get(name), gpu)]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    sums = [cell for costs in results.values() for cell in _cells("predict", total(costs), gpu, costs["predict"])]
    lines.append("| **all, with global** | " + " | ".join(f"**{cell}**" for cell in sums) + " |")
    return "\n".join(lines)


def _cells(name: str, cost: Cost | None, gpu: bool, on_gpu: Cost | None = None) -> list[str]:
    if cost is None:
        return ["–"] * (3 if gpu else 2)
    cells = [f"{cost.cpu / 3600:,.1f}", f"{cost.wall / 3600:,.1f}"]
    if gpu:
        cells.append(f"{(on_gpu or cost).wall / 3600:,.1f}" if name == "predict" else "")
    return cells


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("EMDISTILL_DATA", ".")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "fib25.json")
    parser.add_argument("--raw", type=Path, default=Path(data) / "fib25_unlabelled.h5", help="HDF5, dataset raw")
    parser.add_argument("--tiles", type=int, nargs=3, help="mirrored copies along z y x (default: 2 2 2, quick 1 1 1)")
    parser.add_argument("--large", type=int, nargs=3, metavar="VOXELS", help="the larger box of all networks, z y x")
    parser.add_argument("--teacher-checkpoint", help=f"of the config's teacher, or {RANDOM}")
    parser.add_argument(
        "--student-checkpoint", default="pretrained:fibsem-10nm", help="of the config's student; none leaves it out"
    )
    parser.add_argument("--engine", default="auto", help="predict.engine")
    parser.add_argument("--with-waterz", action="store_true", help="agglomerate with waterz as well")
    parser.add_argument("--out", type=Path, default=Path("runs/end_to_end"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="the student on boxes of 3 and 50 Mvoxel")
    return parser.parse_args()


def main() -> None:
    """Measure the networks whose checkpoints are given, and print the table."""
    options = parse()
    checkpoints = {"teacher": options.teacher_checkpoint, "student": options.student_checkpoint}
    given = {network: path for network, path in checkpoints.items() if path not in (None, "none")}
    options.out.mkdir(parents=True, exist_ok=True)
    raw = enlarged(options.raw, options.tiles or ((1, 1, 1) if options.quick else (2, 2, 2)), options.out)

    gpu = torch.cuda.is_available()
    results: dict[str, dict[str, Cost]] = {}
    document: dict[str, Any] = {"quick": options.quick, "workers": options.workers, "gpu": gpu}
    for network, checkpoint in given.items():
        smaller, larger = (QUICK_BOXES if options.quick else BOXES)[network]
        boxes = (smaller, options.large or larger)
        small, large = (passage(network, checkpoint, shape, raw, options) for shape in boxes)
        results[network] = costs = per_teravoxel(small, large)
        document[network] = {
            "core_hours_per_teravoxel": round(total(costs).cpu / 3600, 1),
            "stages": {name: {"cpu_hours": cost.cpu / 3600, "hours": cost.wall / 3600} for name, cost in costs.items()},
            "gpu_hours_per_teravoxel": costs["predict"].wall / 3600 if gpu else None,
            "voxels": [small.voxels, large.voxels],
            "edges_per_voxel": large.edges / large.voxels,
        }
        document["core_hours_per_teravoxel"] = document[network]["core_hours_per_teravoxel"]
    shutil.rmtree(options.out, ignore_errors=True)
    print(table(results, gpu))
    if len(results) == len(checkpoints):
        shared = [name for name in results["teacher"] if name in results["student"]]
        document["student_over_teacher"] = {
            name: round(results["student"][name].cpu / results["teacher"][name].cpu, 4) for name in shared
        }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
