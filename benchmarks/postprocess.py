"""From affinities to a segmentation, side by side: our stages 03 to 05, stock waterz, the classic chain, and volara.

    python benchmarks/postprocess.py --folder runs/postprocess
    python benchmarks/postprocess.py --network configs/fib25.json --contenders stock waterz   # affinities of a network
    python benchmarks/postprocess.py --volara-environment venvs/volara     # made with pip if it does not exist

`stock` is `waterz.agglomerate` as its users call it: the whole box in memory, one thread, nothing stored, recorded or
checked. `waterz` and `volara` go by blocks, of the same shape and with the same context as ours, in as many processes.
All get the same uint8 affinities in the same zarr array and take turns. Seconds are wall clock from the start to the
written segmentation, and include what starting takes, which is measured on a corner of one block besides; processor
time is that of all processes. VOI (bits) is against the labels, with voxels of id 0 given to the nearest segment, at
each of the same merge thresholds. Affinities are made from the labels: smoothed, with correlated and with plain noise;
`--affinities FILE.npy` takes others, (3, z, y, x) uint8 of the labelled volume, and `--network CONFIG` those of a
student that is trained for a few minutes, with the labels and the fragments' settings of the config.

The last line of the output is one JSON object: `over_stock_waterz` (our voxels per second and core over those of stock
waterz, once started), the same by processor time, `voi_minus_stock` (each at its best threshold), `over_volara`,
`over_waterz` (our rate over theirs), the same of what is left without starting (`…_once_started`), rates and VOIs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import venv
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
import torch
import zarr
from chains.classic_chain import ClassicChain, Scored
from chains.network_affinities import network_affinities, run_of_config
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


@dataclass(frozen=True)
class Cost:
    """Wall clock and processor time of a run, in seconds."""

    wall: float
    processor: float


class Stopwatch:
    """From when it is made: wall clock, and the processor time of child processes that have ended."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), self._of_children()

    def read(self) -> Cost:
        """So far."""
        return Cost(time.perf_counter() - self._wall, self._of_children() - self._processor)

    @staticmethod
    def _of_children() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime


class Contender(ABC):
    """One way from affinities to a segmentation."""

    def __init__(self, run: Run, folder: Path, workers: int) -> None:
        self.run, self.folder, self.workers = run, folder, workers

    @property
    def affinities(self) -> Path:
        """The affinities that all contenders read."""
        return (self.run.volume / "affinities").file

    @abstractmethod
    def measure(self, thresholds: Sequence[float]) -> tuple[Cost, Sweep]:
        """The cost of one run from nothing at the first threshold, and its segmentations at all of them."""


class Ours(Contender):
    """Stages 03 to 05 from one driver, as `run_all.py` runs them."""

    @override
    def measure(self, thresholds: Sequence[float]) -> tuple[Cost, Sweep]:
        forget(self.run)
        command = [sys.executable, "-c", STAGES, str(self.run.directory / "config.json")]
        watch = Stopwatch()
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
        cost = watch.read()
        with open_rag(self.run.config.rag, self.run.directory) as store:
            nodes, edges = store.read_nodes(), store.read_edges()
        return cost, sweep_of((self.run.volume / "fragments").file, (nodes.id, edges.pairs, edges.score))


class Stock(Contender):
    """`waterz.agglomerate` on the whole box, `chains/stock_waterz.py`."""

    @override
    def measure(self, thresholds: Sequence[float]) -> tuple[Cost, Sweep]:
        watch = Stopwatch()
        self._run(thresholds[:1], None)
        cost = watch.read()
        if len(thresholds) > 1:
            self._run(thresholds, self.folder)
        return cost, lambda threshold: np.asarray(np.load(self.folder / f"{threshold}.npy"))

    def _run(self, thresholds: Sequence[float], out: Path | None) -> None:
        job = self.folder / "job.json"
        document = {"affinities": str(self.affinities), "thresholds": list(thresholds), "out": out and str(out)}
        job.write_text(json.dumps(document))
        script = str(Path(__file__).parent / "chains" / "stock_waterz.py")
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        subprocess.run([sys.executable, script, str(job)], check=True, env={**os.environ, **threads})


class Waterz(Contender):
    """The classic chain, `chains/classic_chain.py`."""

    @override
    def measure(self, thresholds: Sequence[float]) -> tuple[Cost, Sweep]:
        block = self.run.config.predict.write_block
        chain = ClassicChain(self.affinities, self.folder / "classic.zarr", block, CONTEXT, self.workers)
        watch = Stopwatch()
        graph = chain.run(thresholds[0])
        return watch.read(), sweep_of(chain.out / "fragments", graph)


class Volara(Contender):
    """volara, `chains/volara_chain.py` in an environment of its own."""

    python: Path

    @override
    def measure(self, thresholds: Sequence[float]) -> tuple[Cost, Sweep]:
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
        watch = Stopwatch()
        done = subprocess.run([self.python, script, str(job)], capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"volara failed:\n{done.stderr[-3000:]}")
        written = json.loads(done.stdout.splitlines()[-1])
        cost = Cost(written["seconds"], watch.read().processor)  # of all thresholds: volara writes each of them
        return cost, lambda threshold: self._read(Path(written[str(threshold)]))

    def _read(self, segments: Path) -> np.ndarray:
        code = "import sys, numpy, zarr; numpy.save(sys.argv[2], zarr.open(sys.argv[1], mode='r')[:])"
        file = self.folder / "segments.npy"
        subprocess.run([self.python, "-c", code, segments, file], check=True)
        result: np.ndarray = np.load(file)
        return result


KINDS: dict[str, type[Contender]] = {"ours": Ours, "stock": Stock, "volara": Volara, "waterz": Waterz}


def sweep_of(fragments: Path, graph: Scored) -> Sweep:
    """Segmentations of scored edges."""

    def segment(threshold: float) -> np.ndarray:
        lut = connected_components(*graph, threshold)
        return relabel(zarr.open_array(str(fragments), mode="r")[:], lut[:, 0], lut[:, 1])

    return segment


@dataclass(frozen=True)
class Settings:
    """What our stages go by.

    Attributes:
        block: voxels along z, y, x.
        voxel_size: nanometres along z, y, x.
        fragments: the section of the config.
    """

    block: tuple[int, ...] = BLOCK
    voxel_size: tuple[float, ...] = (10, 10, 10)
    fragments: Mapping[str, Any] = field(default_factory=lambda: {"context": [CONTEXT] * 3})


def make_run(directory: Path, affinities: np.ndarray, settings: Settings, workers: int) -> Run:
    """A run whose affinities are there as if a network had predicted them."""
    shutil.rmtree(directory, ignore_errors=True)
    shape = affinities.shape[1:]
    document: dict[str, Any] = {
        "run_directory": str(directory.resolve()),
        "volumes": {
            "sources": {"made": {"kind": "phantom", "shape": shape, "voxel_size": list(settings.voxel_size)}},
            "segment": {"source": "made"},
        },
        "student": {"network": dump_config(NETWORK), "distillation": None},
        "predict": {"block_size": list(settings.block)},
        "fragments": dict(settings.fragments),
        "segment": {"thresholds": [THRESHOLDS[0]]},
        "cluster": {"workers": workers},
        "storage": {"format": 2},  # which volara and the classic chain read, too
    }
    run = Run(parse_config(document))
    torch.manual_seed(0)
    save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", build_network(NETWORK), 1, {})
    raw = create_volume(run.volume, "raw", shape, "uint8", voxel_size=settings.voxel_size, chunks=settings.block)
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


def voi_of(sweep: Sweep, thresholds: Sequence[float], labels: np.ndarray) -> list[dict[str, float]]:
    """VOI at each threshold, the lowest first."""
    found = []
    for threshold in thresholds:
        segmentation = sweep(threshold)[tuple(slice(0, extent) for extent in labels.shape)]
        if not segmentation.all():
            nearest = ndimage.distance_transform_edt(segmentation == 0, return_distances=False, return_indices=True)
            segmentation = segmentation[tuple(nearest)]
        voi = variation_of_information(segmentation, labels)
        found.append({"voi": voi.split + voi.merge, "split": voi.split, "merge": voi.merge, "threshold": threshold})
    return sorted(found, key=lambda one: one["voi"])


def load(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, Settings]:
    """Affinities (3, z, y, x), tiled with mirrored copies as asked, the labels (z, y, x) of their first tile, and what
    our stages go by.
    """
    settings = Settings()
    if options.network is not None:
        source = run_of_config(options.network, options.iterations, options.folder.resolve())
        given, labels = network_affinities(source)
        config = source.config
        voxel_size = tuple(source.open_raw(config.volumes.segment.source).voxel_size)
        settings = Settings(tuple(config.predict.write_block), voxel_size, dump_config(config.fragments))
    else:
        with h5py.File(options.labels) as file:
            labels = file[options.dataset][:]
        labelled = labels[:100, :160, :160] if options.quick else labels
        given = np.load(options.affinities) if options.affinities else label_affinities(labelled)
    if options.quick:
        labels = labels[:100, :160, :160]
    affinities = given[(slice(0, 3), *(slice(0, extent) for extent in labels.shape))]
    for axis in np.repeat((1, 2, 3), [count.bit_length() - 1 for count in options.tiles]):
        affinities = np.concatenate([affinities, np.flip(affinities, axis)], axis)
    return affinities, labels, settings


def parse_arguments() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("EMDISTILL_DATA", "."))
    parser.add_argument("--labels", type=Path, default=data / "fib25_train.h5", help="HDF5 file with labels")
    parser.add_argument("--dataset", default="labels", help="name of the labels in it")
    parser.add_argument("--affinities", type=Path, help="an .npy file (default: made from the labels)")
    parser.add_argument("--network", type=Path, help="a config whose student is trained and predicts")
    parser.add_argument("--iterations", type=int, default=400, help="of that training")
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


@dataclass
class Measured:
    """What one contender took, turn by turn, and its VOI, best first."""

    starts: list[Cost] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    voi: list[dict[str, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Wall clock, the median of the turns."""
        return median(cost.wall for cost in self.costs)

    @property
    def start(self) -> float:
        """What starting takes of it."""
        return median(cost.wall for cost in self.starts)

    @property
    def once_started(self) -> float:
        """What is left of it."""
        return max(self.seconds - self.start, 1e-9)

    @property
    def processor(self) -> float:
        """Processor time once started, the median of the turns."""
        used = median(cost.processor for cost in self.costs) - median(cost.processor for cost in self.starts)
        return max(used, 1e-9)


def take_turns(options: argparse.Namespace) -> tuple[int, tuple[int, ...], dict[str, Measured]]:
    """Measure all in turn: voxels, the block, and what each took."""
    affinities, labels, settings = load(options)
    if "volara" in options.contenders:
        Volara.python = volara_python(options.volara_environment)
    folder = options.folder.resolve()
    kinds = {name: kind for name, kind in KINDS.items() if name == "ours" or name in options.contenders}
    small = replace(settings, block=(32, 64, 64))
    corner = make_run(folder / "corner", affinities[:, :32, :64, :64], small, options.workers)
    run = make_run(folder / "run", affinities, settings, options.workers)
    measured = {name: Measured() for name in kinds}
    for turn in range(options.repeats or (1 if options.quick else 3)):
        scored = turn == 0 and not options.without_voi
        for name, kind in kinds.items():
            measured[name].starts.append(kind(corner, folder, options.workers).measure(THRESHOLDS[:1])[0])
            cost, sweep = kind(run, folder, options.workers).measure(THRESHOLDS if scored else THRESHOLDS[:1])
            measured[name].costs.append(cost)
            if scored:
                measured[name].voi = voi_of(sweep, THRESHOLDS, labels)
    return affinities[0].size, settings.block, measured


def ratios(measured: Mapping[str, Measured], workers: int) -> dict[str, float | None]:
    """Ours against each of the others."""
    ours = measured["ours"]
    result: dict[str, float | None] = {}
    for name, other in measured.items():
        if name == "stock":
            result["over_stock_waterz"] = round(other.once_started / (ours.once_started * workers), 2)
            result["over_stock_waterz_by_processor_time"] = round(other.processor / ours.processor, 2)
            result["voi_minus_stock"] = round(ours.voi[0]["voi"] - other.voi[0]["voi"], 3) if other.voi else None
        elif name != "ours":
            result[f"over_{name}"] = round(other.seconds / ours.seconds, 2)
            result[f"over_{name}_once_started"] = round(other.once_started / ours.once_started, 2)
    return result


def table(voxels: int, measured: Mapping[str, Measured], cores: Mapping[str, int]) -> str:
    """Times and rates, then VOI at each threshold."""
    lines = [
        "| | seconds | of which starting | processes | Mvoxel/s | per core once started | VOI | split | merge | at |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in measured.items():
        rate, per_core = voxels / one.seconds / 1e6, voxels / one.once_started / cores[name] / 1e6
        best = one.voi[0] if one.voi else None
        score = (
            f"{best['voi']:.3f} | {best['split']:.3f} | {best['merge']:.3f} | {best['threshold']}" if best else "|||"
        )
        lines.append(
            f"| {name} | {one.seconds:.1f} | {one.start:.1f} | {cores[name]} | {rate:.2f} | {per_core:.2f} | {score} |"
        )
    scored = {
        name: {found["threshold"]: found["voi"] for found in one.voi} for name, one in measured.items() if one.voi
    }
    if scored:
        lines += ["", f"| VOI at | {' | '.join(scored)} |", "|---" * (1 + len(scored)) + "|"]
        lines += [
            f"| {threshold} | {' | '.join(f'{voi[threshold]:.3f}' for voi in scored.values())} |"
            for threshold in sorted(THRESHOLDS)
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure all in turn and print the tables and the ratios."""
    options = parse_arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    voxels, block, measured = take_turns(options)
    print(f"{voxels / 1e6:.1f} Mvoxel, {options.workers} processes, blocks of {block}")
    print(table(voxels, measured, {name: 1 if name == "stock" else options.workers for name in measured}))
    details = {
        "voxels_per_second": {name: voxels / one.seconds for name, one in measured.items()},
        "start_seconds": {name: one.start for name, one in measured.items()},
        "seconds": {name: [cost.wall for cost in one.costs] for name, one in measured.items()},
        "processor_seconds": {name: [cost.processor for cost in one.costs] for name, one in measured.items()},
        "voi": {name: one.voi for name, one in measured.items()},
    }
    print(json.dumps({"quick": options.quick, "voxels": voxels, **ratios(measured, options.workers), **details}))


if __name__ == "__main__":
    main()
