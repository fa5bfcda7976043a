"""Those that go from the same affinities to a segmentation: our stages, stock waterz, the classic chain, volara."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
import venv
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from typing_extensions import override

from pipeline.rag import open_rag
from pipeline.run import Run
from pipeline.segmentation import connected_components, relabel
from pipeline.volumes import open_volume

from .classic_chain import ClassicChain, Scored

ROOT = Path(__file__).resolve().parents[2]
STAGES = """
import sys
from pathlib import Path
from pipeline.stages.by_script import run_chain, segment
from pipeline.config import load_config
from pipeline.run import Run

run = Run(load_config(Path(sys.argv[1]), []))
sys.exit(0 if run_chain(run) and segment(run) else 1)
"""
Sweep = Callable[[float], np.ndarray]
"""From a merge threshold to the segmentation."""


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
        fragments = open_volume(self.run.volume, "fragments")
        return cost, sweep_of(fragments.read(fragments.box), (nodes.id, edges.pairs, edges.score))


class Stock(Contender):
    """`waterz.agglomerate` on the whole box, `stock_waterz.py`."""

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
        script = str(Path(__file__).with_name("stock_waterz.py"))
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        subprocess.run([sys.executable, script, str(job)], check=True, env={**os.environ, **threads})


class Waterz(Contender):
    """The classic chain, `classic_chain.py`."""

    @override
    def measure(self, thresholds: Sequence[float]) -> tuple[Cost, Sweep]:
        block = self.run.config.predict.write_block
        context = self.run.config.fragments.context
        chain = ClassicChain(self.affinities, self.folder / "classic.zarr", block, context, self.workers)
        watch = Stopwatch()
        graph = chain.run(thresholds[0])
        cost = watch.read()
        return cost, sweep_of(zarr.open_array(str(chain.out / "fragments"), mode="r")[:], graph)


class Volara(Contender):
    """volara, `volara_chain.py` in an environment of its own."""

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
            "context": list(self.run.config.fragments.context),
            "workers": self.workers,
            "thresholds": list(thresholds),
        }
        job.write_text(json.dumps(document))
        script = str(Path(__file__).with_name("volara_chain.py"))
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


def sweep_of(fragments: np.ndarray, graph: Scored) -> Sweep:
    """Segmentations of scored edges."""

    def segment(threshold: float) -> np.ndarray:
        lut = connected_components(*graph, threshold)
        return relabel(fragments, lut[:, 0], lut[:, 1])

    return segment


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
        requirements = ROOT / "benchmarks" / "requirements-volara.txt"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
    return python
