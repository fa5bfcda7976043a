"""What the format of a run's arrays costs: stages 02 to 05, and the arrays alone, against another version of emdistill.

    git worktree add ../before v0.9
    python benchmarks/storage.py --against ../before

Contenders are the other version, and format 3 and format 2 of this one. They take turns, each in a new process, on the
same raw volume with the same network; stages run in that process, one block at a time. Stages 03 to 05 get affinities
made from raw, with noise, since the network has learnt nothing. What is compiled is compiled before. Told are voxels
per second of wall clock and of processor time, the medians of the rounds, and their ratios to the other version's;
besides the stages: `commit`, writing the blocks of fragments as workers do (flushed, read back, recorded); `context`,
reading those of affinities and fragments with a context of 16 voxels around; and the files of the run's arrays.

The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BLOCK, CONTEXT = 64, 16
MEASURE = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
import torch
from pipeline.config import parse_config
try:
    from pipeline.stages.importing import ensure_imported
except ImportError:  # as earlier versions called it
    try:
        from pipeline.datasets.preparing import ensure_imported
    except ImportError:
        from pipeline.datasets.importing import ensure_imported
from pipeline.engine.blocks.storage import open_raw
from pipeline.networks import build_network, save_checkpoint
from pipeline.run import Run
from pipeline.stages.by_script import agglomerate, extract_fragments, predict, segment
from pipeline.stages.fragments import FragmentsTask
from pipeline.stages.predict import PredictTask
from funlib.geometry import Coordinate

torch.set_num_threads(1)
document, context = json.loads(sys.argv[1]), Coordinate([int(sys.argv[2])] * 3)
run = Run(parse_config(document))
ensure_imported(run)
torch.manual_seed(0)
network = run.config.student.network
save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", build_network(network), 1, {})

def spent():
    kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    used = [resource.getrusage(kind) for kind in kinds]
    return time.perf_counter(), sum(u.ru_utime + u.ru_stime for u in used)

times = {}
def measured(name, work):
    before = spent()
    work()
    times[name] = [after - first for after, first in zip(spent(), before)]

_ = PredictTask(run).empty
measured("predict", lambda: predict(run))
raw, affinities = open_raw(run), PredictTask(run).open_output()
for block in PredictTask(run).chunk_grid:
    box = PredictTask(run).grid.to_source(block.box)
    noise = np.random.default_rng(block.index).normal(0, 25, (3, *box.shape))
    affinities.write(block, np.clip(1.6 * raw.read(box) + noise, 0, 255).astype(np.uint8))
for name, stage in (("fragments", extract_fragments), ("agglomerate", agglomerate), ("segment", segment)):
    measured(name, lambda: stage(run))
tasks = FragmentsTask(run), PredictTask(run)
blocks, grid = list(tasks[0].grid), tasks[0].grid
arrays = [task.open_complete() for task in tasks]
data = [arrays[0].read(block.box) for block in blocks]
output = tasks[0].open_output()
for number in range(3):  # the first time brings the files into memory
    measured("context", lambda: [a.read(grid.with_context(b.box, context, context)) for b in blocks for a in arrays])
    measured("commit", lambda: [output.write(block, voxels) for block, voxels in zip(blocks, data)])
names = "affinities", "fragments", *(f"segmentation/{name}" for name in run.segmentation_names())
folders = [getattr(run.volume / name, "file", run.volume / name) for name in names]  # earlier versions have paths
paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
sizes = [path.stat().st_size for path in paths]
print(json.dumps({"times": times, "files": len(sizes), "bytes": sum(sizes), "voxels": grid.box.size,
                  "checksum": int(sum(int(d.sum() % 2**32) for d in data))}))
"""


def config_of(folder: Path, shape: tuple[int, ...], block: int) -> dict[str, Any]:
    """A phantom of a shape, and a small network that has learnt nothing."""
    return {
        "run_directory": str(folder),
        "volumes": {
            "sources": {"a": {"kind": "phantom", "shape": list(shape)}},
            "segment": {"source": "a"},
            "import_block": [block] * 3,
        },
        "student": {"network": {"name": "section_unet", "sections": 3, "widths": [4, 6]}, "distillation": None},
        "predict": {
            "block_size": [block] * 3,
            "tile_size": [block] * 3,
            "engine": "torch",
            "device": "cpu",
            "blocks_in_flight": 1,
        },
        "fragments": {"context": [4, 16, 16]},
        "segment": {"thresholds": [0.5]},
        "cluster": {"executor": "serial"},
    }


def measure(root: Path, document: dict[str, Any]) -> dict[str, Any]:
    """What one version spends on each part."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", MEASURE, json.dumps(document), str(CONTEXT)]
    done = subprocess.run(command, check=False, env=environment, cwd=root, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{root}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{root}: {json.dumps(result['times'])}", file=sys.stderr)
    return result


def rates(rounds: list[dict[str, Any]], clock: int) -> dict[str, float]:
    """Voxels per second by part: of wall clock (0) or processor time (1)."""
    parts = rounds[0]["times"]
    each = {part: median(result["voxels"] / result["times"][part][clock] for result in rounds) for part in parts}
    stages = ("predict", "fragments", "agglomerate", "segment")
    every = median(result["voxels"] / sum(result["times"][stage][clock] for stage in stages) for result in rounds)
    return {**each, "02 to 05": every}


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="the checkout of another version")
    parser.add_argument("--shape", default="128,256,256", help="voxels of the volume (default %(default)s)")
    parser.add_argument("--block", type=int, default=BLOCK, help="voxels along each edge of a block (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", default="3,2", help="of this version (default %(default)s)")
    options = parser.parse_args()
    shape = tuple(int(extent) for extent in options.shape.split(","))
    contenders: dict[str, tuple[Path, dict[str, Any]]] = {
        "other version": (options.against.resolve(), {}),
        **{f"format {name}": (ROOT, {"storage": {"format": int(name)}}) for name in options.formats.split(",")},
    }
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for root in (options.against.resolve(), ROOT):
        with tempfile.TemporaryDirectory() as folder:
            measure(root, config_of(Path(folder), (2 * CONTEXT,) * 3, CONTEXT))
    for number in range(options.rounds):
        for name, (root, sections) in list(contenders.items())[:: 1 if number % 2 == 0 else -1]:
            with tempfile.TemporaryDirectory() as folder:
                results[name].append(measure(root, {**config_of(Path(folder), shape, options.block), **sections}))
    assert len({result["checksum"] for rounds in results.values() for result in rounds}) == 1, "fragments differ"
    summary: dict[str, Any] = {}
    for clock, called in enumerate(("wall", "processor")):
        reference = rates(results["other version"], clock)
        print(f"Voxels per second of {called} time, and how many times those of the other version")
        for name, rounds in results.items():
            found = rates(rounds, clock)
            summary[f"{name}, {called}"] = {part: round(rate / reference[part], 3) for part, rate in found.items()}
            told = "  ".join(
                f"{part} {rate / 1e6:.2f} M ({rate / reference[part]:.2f})" for part, rate in found.items()
            )
            print(f"  {name:14} {told}")
    for name, rounds in results.items():
        summary[f"{name}, on disk"] = {"files": rounds[0]["files"], "bytes": rounds[0]["bytes"]}
        print(f"  {name:14} {rounds[0]['files']} files, {rounds[0]['bytes'] / 1e6:.1f} MB")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
