"""Run cells: each in a process of its own, several at a time, never the same one twice."""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pipeline.networks import build_network
from pipeline.networks.checkpoint import load_checkpoint
from pipeline.run import Run, package_versions, read_summary

from .agreement import area_between_neighbours
from .cells import Cell
from .datasets import DATASETS, ROOT
from .scoring import mean_over_watersheds


def finish_cells(cells: Sequence[Cell], jobs: int, threads: int) -> None:
    """Run the cells that are not finished: teachers first, then students, `jobs` at a time."""
    for teachers in (True, False):
        missing = [cell for cell in cells if (cell.role == "teacher") == teachers and not cell.is_finished()]
        with ThreadPoolExecutor(jobs) as pool:
            for _ in pool.map(lambda cell: finish_cell(cell, threads), missing):
                pass


def finish_cell(cell: Cell, threads: int) -> None:
    """Train, segment and score one cell, or continue with it; nothing if another process is at it.

    Raises:
        SystemExit: it failed; its log is named.
    """
    with _alone_with(cell) as alone:
        if not alone or cell.is_finished():
            return
        started = time.monotonic()
        log = cell.directory / "cell.log"
        run_workflow("run_all.py", cell, threads, log)
        summary, trained = read_summary(cell.run), load_checkpoint(cell.checkpoint)
        cell.save(
            best=summary["best"],
            scores=summary["best"] if DATASETS[cell.dataset].images else _scores_of_volume(cell.run),
            parameters=build_network(getattr(cell.run.config, cell.role).network).parameter_count(),
            iterations=trained["iteration"],
            training_seconds=round(trained["training"]["progress"]["seconds"], 1),
            processor=processor(),
            threads=threads,
            versions=package_versions(),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        sys.stderr.write(f"{cell.directory}: {summary['best']} after {time.monotonic() - started:.0f} s\n")


def _scores_of_volume(run: Run) -> dict[str, float]:
    return {**mean_over_watersheds(run), "area": round(area_between_neighbours(run), 6)}


def run_workflow(script: str, cell: Cell, threads: int, log: Path, overrides: Sequence[str] = ()) -> None:
    """Run a workflow script with a cell's config; its output goes to a log.

    Raises:
        SystemExit: it failed; its log is named.
    """
    command = [sys.executable, str(ROOT / "workflows" / script), str(cell.config_file)]
    for override in [*cell.overrides(), *overrides]:
        command += ["--set", override]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        status = subprocess.run(command, stdout=output, stderr=output, env=environment, check=False).returncode
    if status:
        raise SystemExit(f"{script} failed with status {status}, see {log}; the same command continues")


@contextmanager
def _alone_with(cell: Cell) -> Iterator[bool]:
    """Whether this process got the lock of a cell. The operating system frees it when the process ends."""
    cell.directory.mkdir(parents=True, exist_ok=True)
    with (cell.directory / "cell.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"{cell.directory}: another process is at it\n")
            yield False
            return
        yield True


def processor() -> str:
    """The name of the processor and the number of cores that this process may use."""
    cores = len(os.sched_getaffinity(0))
    information = Path("/proc/cpuinfo")
    names = [line for line in information.read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.processor()
    return f"{name}, {cores} cores"
