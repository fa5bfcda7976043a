r"""One table from raw to a segmentation: hours of CPU cores, and of a GPU where there is one, that a teravoxel takes.

    python benchmarks/end_to_end.py --teacher-checkpoint runs/fib25/teacher/best.pt \
        --student-checkpoint runs/fib25/student/best.pt

The real workflows run on two boxes of a real volume, a smaller and a larger one. Every rate is the difference between
the two over the difference in voxels, so that what a run costs once, above all the start of its processes, is left out.
CPU time is user and system time of the driver and all its workers, which other load on the machine hardly changes;
wall time is that of this machine with so many workers, and other load does lengthen it.

Agglomeration (`global`) is one process that sorts the edges of the whole graph. Its CPU time per n log n edges is taken
from the larger box and extrapolated to the edges of a teravoxel; how far the two boxes differ in it is told, and where
it still grows, the extrapolation is a lower bound. Its memory is extrapolated, too, which tells whether one machine can
do that; `waterz` is measured beside it as what works block by block instead.

The last line of the output is one JSON object: by network `cpu_hours_per_teravoxel` (of all stages, with the
agglomeration that works block by block) and `stages`; `student_over_teacher`.
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

import torch

from pipeline.config import load_config
from pipeline.rag import open_rag
from pipeline.run import Run, read_summary
from pipeline.stages.agglomerate import GlobalAgglomeration

ROOT = Path(__file__).resolve().parents[1]
TERAVOXEL = 1e12
BYTES_PER_EDGE = 465
"""What the global stage takes (benchmarks/scale.py)."""
STAGES = ("predict", "fragments", "rag", "agglomerate, global", "agglomerate, waterz", "segment")
SUMMED = tuple(name for name in STAGES if name != "agglomerate, global")
BOXES = {
    "teacher": ((50, 250, 250), (100, 375, 500)),
    "student": ((50, 250, 250), (200, 500, 500)),
}
"""The smaller and the larger box of each network, whole blocks of configs/fib25.json."""
QUICK_BOXES = ((50, 125, 250), (50, 250, 250))


@dataclass(frozen=True)
class Cost:
    """Time and memory that a stage took.

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


def run_workflow(script: str, config: Path, settings: dict[str, Any], *flags: str) -> Cost:
    """CPU time of a workflow and everything that it starts, and its time on the wall."""
    arguments = [*(f"--set={key}={json.dumps(value)}" for key, value in settings.items()), *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    before, began = _cpu_of_children(), time.perf_counter()
    command = [sys.executable, str(ROOT / "workflows" / script), str(config), *arguments]
    subprocess.run(command, check=True, env=environment)
    return Cost(_cpu_of_children() - before, time.perf_counter() - began)


def _cpu_of_children() -> float:
    """Seconds of all processes that this one has waited for, and of those that they have."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def passage(network: str, checkpoint: Path, shape: Sequence[int], options: argparse.Namespace) -> Passage:
    """Run all stages on a box from an empty directory."""
    shutil.rmtree(options.out, ignore_errors=True)
    settings: dict[str, Any] = {
        "run_directory": str(options.out.resolve()),
        "volumes": {
            "sources": {"large": {"kind": "file", "path": str(options.raw), "raw": "raw"}},
            "segment": {"source": "large", "begin": [0, 0, 0], "end": list(shape)},
        },
        "predict.checkpoint": str(checkpoint.resolve()),
        "predict.network": network,
        "segment.thresholds": [0.5],
        "cluster.workers": options.workers,
    }
    waterz = settings | {"agglomerate.method": "waterz"}
    run_workflow("import_data.py", options.config, settings)
    costs = {
        "predict": run_workflow("02_predict_blockwise.py", options.config, settings),
        "fragments": run_workflow("03_extract_fragments.py", options.config, settings),
    }
    graph = run_workflow("04_agglomerate.py", options.config, settings)
    run = Run(load_config(options.config, [f"{key}={json.dumps(value)}" for key, value in settings.items()]))
    costs["agglomerate, global"] = _global_agglomeration(run)
    costs["rag"] = graph.minus(costs["agglomerate, global"])
    costs["segment"] = run_workflow("05_segment.py", options.config, settings)
    costs["agglomerate, waterz"] = run_workflow("04_agglomerate.py", options.config, waterz, "--overwrite")
    assert all(not stage["blocks_failed"] for stage in read_summary(run)["stages"].values())
    with open_rag(run.config.rag, run.directory) as store:
        edges = store.counts().edges
    return Passage(math.prod(shape), edges, costs)


def _global_agglomeration(run: Run) -> Cost:
    """The stage once more, alone: it is one process, and replaces what it has stored."""
    cpu, began = time.process_time(), time.perf_counter()
    GlobalAgglomeration(run).execute()
    return Cost(time.process_time() - cpu, time.perf_counter() - began)


def per_teravoxel(small: Passage, large: Passage) -> dict[str, Cost]:
    """Seconds of each stage."""
    factor = TERAVOXEL / (large.voxels - small.voxels)
    costs = {name: large.costs[name].minus(small.costs[name]).times(factor) for name in STAGES}
    edges = large.edges / large.voxels * TERAVOXEL
    growth = edges * math.log2(edges) / (large.edges * math.log2(large.edges))
    costs["agglomerate, global"] = large.costs["agglomerate, global"].times(growth)
    return costs


def growth_of_global(small: Passage, large: Passage) -> float:
    """CPU time per n log n edges, of the larger box over the smaller; 1 if that is how it grows."""
    per_edge = [one.costs["agglomerate, global"].cpu / (one.edges * math.log2(one.edges)) for one in (small, large)]
    return per_edge[1] / per_edge[0]


def table(results: dict[str, dict[str, Cost]], gpu: bool) -> str:
    """Markdown: core hours, hours on the wall and hours of the GPU by stage and network."""
    units = ["CPU-hours", "hours here"] + (["GPU-hours"] if gpu else [])
    heads = [f"{network}, {unit}" for network in results for unit in units]
    lines = ["| stage | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    for name in STAGES:
        cells = [cell for costs in results.values() for cell in _cells(name, costs[name], gpu)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    totals = [cell for costs in results.values() for cell in _cells("predict", _total(costs), gpu, costs["predict"])]
    lines.append("| **all, with waterz** | " + " | ".join(f"**{cell}**" for cell in totals) + " |")
    return "\n".join(lines)


def _cells(name: str, cost: Cost, gpu: bool, on_gpu: Cost | None = None) -> list[str]:
    cells = [f"{cost.cpu / 3600:,.0f}", f"{cost.wall / 3600:,.0f}"]
    if gpu:
        cells.append(f"{(on_gpu or cost).wall / 3600:,.1f}" if name == "predict" else "")
    return cells


def _total(costs: dict[str, Cost]) -> Cost:
    return Cost(sum(costs[name].cpu for name in SUMMED), sum(costs[name].wall for name in SUMMED))


def main() -> None:
    """Measure the networks whose checkpoints are given, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("EMDISTILL_DATA", ".")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "fib25.json")
    parser.add_argument("--raw", type=Path, default=Path(data) / "fib25_unlabelled.h5")
    parser.add_argument("--teacher-checkpoint", type=Path, help="a trained teacher of the config")
    parser.add_argument("--student-checkpoint", type=Path, help="a trained student of the config")
    parser.add_argument("--out", type=Path, default=Path("runs/end_to_end"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="boxes of 1.6 and 3.1 Mvoxel: checks the benchmark only")
    options = parser.parse_args()
    checkpoints = {"teacher": options.teacher_checkpoint, "student": options.student_checkpoint}
    given = {network: path for network, path in checkpoints.items() if path is not None}
    if not given:
        parser.error("a trained checkpoint is needed: what the later stages do depends on the affinities")

    gpu = torch.cuda.is_available()
    results: dict[str, dict[str, Cost]] = {}
    document: dict[str, Any] = {"quick": options.quick, "workers": options.workers, "gpu": gpu}
    for network, checkpoint in given.items():
        boxes = QUICK_BOXES if options.quick else BOXES[network]
        small, large = (passage(network, checkpoint, shape, options) for shape in boxes)
        results[network] = costs = per_teravoxel(small, large)
        edges = large.edges / large.voxels * TERAVOXEL
        document[network] = {
            "cpu_hours_per_teravoxel": round(_total(costs).cpu / 3600, 1),
            "stages": {name: {"cpu_hours": cost.cpu / 3600, "hours": cost.wall / 3600} for name, cost in costs.items()},
            "gpu_hours_per_teravoxel": costs["predict"].wall / 3600 if gpu else None,
            "voxels": [small.voxels, large.voxels],
            "edges_per_voxel": large.edges / large.voxels,
            "global_terabytes": edges * BYTES_PER_EDGE / 1e12,
            "global_growth_over_n_log_n": round(growth_of_global(small, large), 3),
        }
    shutil.rmtree(options.out, ignore_errors=True)
    print(table(results, gpu))
    for network in results:
        print(
            f"{network}: {document[network]['edges_per_voxel']:.4f} edges per voxel; `global` would take about "
            f"{document[network]['global_terabytes']:.1f} TB of memory on a teravoxel; its time per n log n edges is "
            f"{document[network]['global_growth_over_n_log_n']:.2f} times as long in the larger box"
        )
    if len(results) == len(checkpoints):
        document["student_over_teacher"] = {
            "predict": round(results["student"]["predict"].cpu / results["teacher"]["predict"].cpu, 4),
            "all": round(_total(results["student"]).cpu / _total(results["teacher"]).cpu, 4),
        }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
