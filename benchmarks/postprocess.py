"""From affinities to a segmentation, side by side: our stages 03 to 05, volara, and the classic watershed with waterz.

    python benchmarks/postprocess.py --folder runs/postprocess
    python benchmarks/postprocess.py --volara-environment venvs/volara     # made with pip if it does not exist

All get the same uint8 affinities in the same zarr array, blocks of the same shape with the same context, and as
many processes; they take turns. Seconds are wall clock from the start to the written segmentation, and include what
starting takes, which is measured on a corner of one block besides. VOI (bits) is against the labels, with voxels of
id 0 given to the nearest segment, at each one's best of the same merge thresholds. Affinities are made from the labels:
smoothed, with correlated and with plain noise; `--affinities FILE.npy` takes others, (3, z, y, x) uint8 of the labelled
volume.

The last line of the output is one JSON object: `over_volara`, `over_waterz` (our rate over theirs), the same of what
is left without starting (`…_once_started`), rates and VOIs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
import torch
import zarr
from chains.classic_chain import ClassicChain, Scored
from scale import NETWORK
from scipy import ndimage
from typing_extensions import override

from pipeline.config import dump_config, parse_config
from pipeline.engine.tracking.progress import begin, write_record
from pipeline.evaluation import variation_of_information
from pipeline.networks import build_network, save_checkpoint
from pipeline.rag import open_rag
from pipeline.run import Run
from pipeline.segmentation import connected_components, relabel
from pipeline.stages.predict import PredictTask
from pipeline.volumes import create_volume

ROOT = Path(__file__).resolve().parents[1]
STAGES = """
import sys
from pathlib import Path
from pipeline.stages.by_script import run_chain, segment
from pipeline.config import load_config
from pipeline.run import Run

run = Run(load_config(Path(sys.argv[1]), []))
sys.exit(0 if run_chain(run) and segment(run) else 1)
"""
THRESHOLDS = (0.5, 0.4, 0.6, 0.7, 0.8)
"""Merge thresholds, 1 - affinity; the first is the one that is timed."""
BLOCK, CONTEXT = (50, 125, 125), 16
SOFTNESS, BLOBS, GRAIN = 0.7, 0.5, 0.08
"""Standard deviation in voxels of the smoothing, and those of the correlated and of the plain noise."""
BLOB_SIZE = 2.0
Sweep = Callable[[float], np.ndarray]
"""From a merge threshold to the segmentation."""


def label_affinities(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Affinities like those of a network, (3, z, y, x) uint8: soft membranes, uncertain in places.

    Args:
        labels: (z, y, x) ids; 0 is background.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    membrane = ndimage.minimum_filter(labels, 3) != ndimage.maximum_filter(labels, 3)
    labels = np.where(membrane, 0, labels)
    channels = []
    for axis in range(3):
        same = (labels == np.roll(labels, 1, axis)) & (labels > 0)
        same[(slice(None),) * axis + (0,)] = True
        soft = ndimage.gaussian_filter(same.astype(np.float32), SOFTNESS)
        blobs = ndimage.gaussian_filter(rng.standard_normal(labels.shape, np.float32), BLOB_SIZE)
        noise = BLOBS * blobs / blobs.std() * (1 - soft) + GRAIN * rng.standard_normal(labels.shape, np.float32)
        channels.append(np.rint(255 * np.clip(soft + noise, 0, 1)).astype(np.uint8))
    return np.stack(channels)


class Contender(ABC):
    """One way from affinities to a segmentation."""

    def __init__(self, run: Run, folder: Path, workers: int) -> None:
        self.run, self.folder, self.workers = run, folder, workers

    @property
    def affinities(self) -> Path:
        """The affinities that all contenders read."""
        return (self.run.volume / "affinities").file

    @abstractmethod
    def measure(self, thresholds: Sequence[float]) -> tuple[float, Sweep]:
        """Seconds of one run from nothing at the first threshold, and its segmentations at all of them."""


class Ours(Contender):
    """Stages 03 to 05 from one driver, as `run_all.py` runs them."""

    @override
    def measure(self, thresholds: Sequence[float]) -> tuple[float, Sweep]:
        forget(self.run)
        command = [sys.executable, "-c", STAGES, str(self.run.directory / "config.json")]
        begun = time.perf_counter()
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
        seconds = time.perf_counter() - begun
        with open_rag(self.run.config.rag, self.run.directory) as store:
            nodes, edges = store.read_nodes(), store.read_edges()
        return seconds, sweep_of((self.run.volume / "fragments").file, (nodes.id, edges.pairs, edges.score))


class Waterz(Contender):
    """The classic chain, `chains/classic_chain.py`."""

    @override
    def measure(self, thresholds: Sequence[float]) -> tuple[float, Sweep]:
        block = self.run.config.predict.write_block
        chain = ClassicChain(self.affinities, self.folder / "classic.zarr", block, CONTEXT, self.workers)
        begun = time.perf_counter()
        graph = chain.run(thresholds[0])
        return time.perf_counter() - begun, sweep_of(chain.out / "fragments", graph)


class Volara(Contender):
    """volara, `chains/volara_chain.py` in an environment of its own."""

    python: Path

    @override
    def measure(self, thresholds: Sequence[float]) -> tuple[float, Sweep]:
        out, job = self.folder / "volara", self.folder / "job.json"
        shutil.rmtree(out, ignore_errors=True)
        document = {
            "container": str(self.run.volume),
            "dataset": "affinities",
            "out": str(out),
            "block": list(self.run.config.predict.block_size),
            "context": [CONTEXT] * 3,
            "workers": self.workers,
            "thresholds": list(thresholds),
        }
        job.write_text(json.dumps(document))
        script = str(Path(__file__).parent / "chains" / "volara_chain.py")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run([self.python, script, str(job)], capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"volara failed:\n{done.stderr[-3000:]}")
        written = json.loads(done.stdout.splitlines()[-1])
        return written["seconds"], lambda threshold: self._read(Path(written[str(threshold)]))

    def _read(self, segments: Path) -> np.ndarray:
        code = "import sys, numpy, zarr; numpy.save(sys.argv[2], zarr.open(sys.argv[1], mode='r')[:])"
        file = self.folder / "segments.npy"
        subprocess.run([self.python, "-c", code, segments, file], check=True)
        result: np.ndarray = np.load(file)
        return result


KINDS: dict[str, type[Contender]] = {"ours": Ours, "volara": Volara, "waterz": Waterz}


def sweep_of(fragments: Path, graph: Scored) -> Sweep:
    """Segmentations of scored edges."""

    def segment(threshold: float) -> np.ndarray:
        lut = connected_components(*graph, threshold)
        return relabel(zarr.open_array(str(fragments), mode="r")[:], lut[:, 0], lut[:, 1])

    return segment


def make_run(directory: Path, affinities: np.ndarray, block: Sequence[int], workers: int) -> Run:
    """A run whose affinities are there as if a network had predicted them."""
    shutil.rmtree(directory, ignore_errors=True)
    shape = affinities.shape[1:]
    document: dict[str, Any] = {
        "run_directory": str(directory.resolve()),
        "volumes": {
            "sources": {"made": {"kind": "phantom", "shape": shape, "voxel_size": [10, 10, 10]}},
            "segment": {"source": "made"},
        },
        "student": {"network": dump_config(NETWORK), "distillation": None},
        "predict": {"block_size": list(block)},
        "fragments": {"context": [CONTEXT] * 3},
        "segment": {"thresholds": [THRESHOLDS[0]]},
        "cluster": {"workers": workers},
        "storage": {"format": 2},  # which volara and the classic chain read, too
    }
    run = Run(parse_config(document))
    torch.manual_seed(0)
    save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", build_network(NETWORK), 1, {})
    raw = create_volume(run.volume, "raw", shape, "uint8", voxel_size=(10, 10, 10), chunks=block)
    raw.write(raw.box, affinities[2])
    task = PredictTask(run)
    begin(task)
    output = task.open_output()
    for part in task.grid:
        output.write(part, affinities[(slice(None), *part.box.slices)])
    write_record(task, complete=True)
    run.save_config()
    return run


def forget(run: Run) -> None:
    """Remove what the stages after prediction have written."""
    for folder in ("volume.zarr/fragments", "volume.zarr/segmentation", "luts"):
        shutil.rmtree(run.directory / folder, ignore_errors=True)
    for path in run.directory.glob("rag.sqlite*"):
        path.unlink()
    for path in run.tracking.iterdir():
        if not path.name.startswith("predict"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def volara_python(folder: Path) -> Path:
    """The interpreter of an environment with volara; made if the folder does not exist."""
    python = folder.resolve() / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        requirements = Path(__file__).with_name("requirements-volara.txt")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
    return python


def best_voi(sweep: Sweep, thresholds: Sequence[float], labels: np.ndarray) -> dict[str, float]:
    """The lowest VOI over the thresholds, and where it is."""
    found = []
    for threshold in thresholds:
        segmentation = sweep(threshold)[tuple(slice(0, extent) for extent in labels.shape)]
        if not segmentation.all():
            nearest = ndimage.distance_transform_edt(segmentation == 0, return_distances=False, return_indices=True)
            segmentation = segmentation[tuple(nearest)]
        voi = variation_of_information(segmentation, labels)
        found.append({"voi": voi.split + voi.merge, "split": voi.split, "merge": voi.merge, "threshold": threshold})
    return min(found, key=lambda one: one["voi"])


def load(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Affinities (3, z, y, x), tiled with mirrored copies as asked, and the labels (z, y, x) of their first tile."""
    with h5py.File(options.labels) as file:
        labels = file[options.dataset][:]
    if options.quick:
        labels = labels[:100, :160, :160]
    given = np.load(options.affinities) if options.affinities else label_affinities(labels)
    affinities = given[(slice(0, 3), *(slice(0, extent) for extent in labels.shape))]
    for axis in np.repeat((1, 2, 3), [count.bit_length() - 1 for count in options.tiles]):
        affinities = np.concatenate([affinities, np.flip(affinities, axis)], axis)
    return affinities, labels


def parse_arguments() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("EMDISTILL_DATA", "."))
    parser.add_argument("--labels", type=Path, default=data / "fib25_train.h5", help="HDF5 file with labels")
    parser.add_argument("--dataset", default="labels", help="name of the labels in it")
    parser.add_argument("--affinities", type=Path, help="an .npy file (default: made from the labels)")
    parser.add_argument(
        "--tiles", type=int, nargs=3, default=(1, 1, 1), help="mirrored copies, powers of two, along z y x"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/postprocess"))
    parser.add_argument("--volara-environment", type=Path, default=Path("runs/postprocess_volara"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, help="turns of each (default: 3, or 1 with --quick)")
    parser.add_argument("--contenders", nargs="+", choices=KINDS, default=list(KINDS), help="who takes part besides us")
    parser.add_argument("--without-voi", action="store_true", help="time only")
    parser.add_argument("--quick", action="store_true", help="a corner of 100x160x160 voxels, once")
    return parser.parse_args()


def main() -> None:
    """Measure all in turn and print the table and the ratios."""
    options = parse_arguments()
    affinities, labels = load(options)
    if "volara" in options.contenders:
        Volara.python = volara_python(options.volara_environment)
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = options.folder.resolve()
    kinds = {name: kind for name, kind in KINDS.items() if name == "ours" or name in options.contenders}
    corner = make_run(folder / "corner", affinities[:, :32, :64, :64], (32, 64, 64), options.workers)
    run = make_run(folder / "run", affinities, BLOCK, options.workers)
    starts: dict[str, list[float]] = {name: [] for name in kinds}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    voi: dict[str, dict[str, float]] = {}
    for turn in range(options.repeats or (1 if options.quick else 3)):
        scored = turn == 0 and not options.without_voi
        for name, kind in kinds.items():
            starts[name].append(kind(corner, folder, options.workers).measure(THRESHOLDS[:1])[0])
            taken, sweep = kind(run, folder, options.workers).measure(THRESHOLDS if scored else THRESHOLDS[:1])
            seconds[name].append(taken)
            if scored:
                voi[name] = best_voi(sweep, THRESHOLDS, labels)
    voxels = affinities[0].size
    start = {name: median(times) for name, times in starts.items()}
    rates = {name: voxels / median(times) for name, times in seconds.items()}
    print(f"{voxels / 1e6:.1f} Mvoxel, {options.workers} processes, blocks of {BLOCK}, context {CONTEXT}")
    print("| | seconds | of which starting | Mvoxel/s | VOI | split | merge | at |\n|---|---|---|---|---|---|---|---|")
    for name, times in seconds.items():
        score = voi.get(name)
        shown = (
            f"{score['voi']:.3f} | {score['split']:.3f} | {score['merge']:.3f} | {score['threshold']}" if score else ""
        )
        print(f"| {name} | {median(times):.1f} | {start[name]:.1f} | {rates[name] / 1e6:.2f} | {shown} |")
    result = {f"over_{name}": round(rates["ours"] / rate, 2) for name, rate in rates.items() if name != "ours"}
    running = {name: median(times) - start[name] for name, times in seconds.items()}
    result |= {
        f"over_{name}_once_started": round(running[name] / running["ours"], 2) for name in seconds if name != "ours"
    }
    details = {"voxels_per_second": rates, "start_seconds": start, "seconds": seconds, "voi": voi}
    print(json.dumps({"quick": options.quick, "voxels": voxels, **result, **details}))


if __name__ == "__main__":
    main()
