"""How many blocks per second the scheduler hands out, to how many workers: with blocks that do nothing.

    python benchmarks/cluster.py --quick
    python benchmarks/cluster.py --workers 1 --workers 8 --workers 32 --executor local --executor slurm

Compared are daisy by itself (its own worker loop, with its tracking), and this project's workers as processes and,
where `sbatch` is found, as jobs. The clock runs from the moment when all workers have come until the last one is told
that there are no more blocks: how long processes take to start and to end is another question. Scheduler and workers
share the machine here, so that with many workers on few processors the figures are lower bounds. `--milliseconds` has
each block take that long, without using the processor. The last line of the output is one JSON object: blocks per
second, and the shares of daisy's rate.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import daisy.v2 as daisy
from engine import Nothing, make_run
from funlib.geometry import Coordinate

from pipeline.blockwise import run_stages
from pipeline.blockwise.roster import read_roster
from pipeline.blockwise.stage import BlockFunction
from pipeline.run import Run

PATIENCE = 0.02
BARE = "daisy"


@dataclass(frozen=True)
class Gated(Nothing):
    """Blocks that do nothing for a while, once a file says that all workers are there."""

    seconds: float = 0.0

    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        pass_gate(self.run.directory)
        yield lambda block: work(self.seconds)


def pass_gate(folder: Path) -> None:
    """Wait for the file that starts the clock."""
    while not (folder / "go").exists():
        time.sleep(PATIENCE)


def work(seconds: float) -> None:
    """Compute a block: nothing, or wait as if for an accelerator."""
    if seconds:
        time.sleep(seconds)


def work_for_daisy(folder: Path, seconds: float) -> None:
    """daisy's own worker loop."""
    client = daisy.Client()
    (folder / f"here_{client.worker_id}").touch()
    pass_gate(folder)
    while True:
        with client.acquire_block() as block:
            if block is None:
                break
            work(seconds)
    (folder / f"gone_{client.worker_id}").touch()


class Gate:
    """Opens when all workers have come, and knows when that was."""

    def __init__(self, folder: Path, come: Callable[[], int], workers: int) -> None:
        self.opened = 0.0
        self._folder, self._come, self._workers = folder, come, workers
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._come() < self._workers:
            time.sleep(PATIENCE)
        self.opened = time.time()
        (self._folder / "go").touch()


def ours(folder: Path, executor: str, workers: int, side: int, seconds: float) -> float:
    """Blocks per second of this project's workers."""
    run = cube(folder, side, executor, workers)
    task = Gated(run, seconds)
    gate = Gate(folder, lambda: len(read_roster(task)), workers)
    assert run_stages(run, [task], False)
    return side**3 / (max(entry.heard for entry in read_roster(task)) - gate.opened)


def daisys(folder: Path, workers: int, side: int, seconds: float) -> float:
    """Blocks per second of daisy by itself."""
    folder.mkdir(parents=True)
    gate = Gate(folder, lambda: len(list(folder.glob("here_*"))), workers)
    shape, block = Coordinate(side, side, side) * 16, Coordinate(16, 16, 16)
    task = daisy.Task(
        "bare",
        total_roi=daisy.Roi((0, 0, 0), shape),
        read_roi=daisy.Roi((0, 0, 0), block),
        write_roi=daisy.Roi((0, 0, 0), block),
        process_function=functools.partial(work_for_daisy, folder, seconds),
        read_write_conflict=False,
        max_workers=workers,
        tracking_path=str(folder / "tracking"),
    )
    assert daisy.run_blockwise(task, progress=False, host="127.0.0.1", summary=False)
    return side**3 / (max(path.stat().st_mtime for path in folder.glob("gone_*")) - gate.opened)


def cube(folder: Path, side: int, executor: str, workers: int) -> Run:
    """A run of side³ blocks."""
    slurm = {"poll": 1.0} if executor == "slurm" else {}
    return make_run(folder, (2 * side,) * 3, (2, 2, 2), executor=executor, workers=workers, slurm=slurm)


def main() -> None:
    """Measure every combination in turn, `--repeats` times, and print medians."""
    options = parse()
    side = options.side or (22 if options.quick else 46)
    counts = options.workers or ([1, 4] if options.quick else [1, 8, 32])
    executors = options.executor or ["local", *(["slurm"] if shutil.which("sbatch") else [])]
    rates: dict[str, dict[int, list[float]]] = {name: {n: [] for n in counts} for name in [BARE, *executors]}
    for repeat in range(options.repeats or (1 if options.quick else 3)):
        for workers in counts:
            for name, measured in rates.items():
                with tempfile.TemporaryDirectory(prefix="emdistill-", dir=options.folder) as place:
                    folder = Path(place) / f"{name}-{workers}-{repeat}"
                    pause = options.milliseconds / 1000
                    rate = (
                        daisys(folder, workers, side, pause)
                        if name == BARE
                        else ours(folder, name, workers, side, pause)
                    )
                    measured[workers].append(rate)
    medians = {name: {n: sorted(values)[len(values) // 2] for n, values in by.items()} for name, by in rates.items()}
    shares = {
        name: {str(n): round(by[n] / medians[BARE][n], 3) for n in counts}
        for name, by in medians.items()
        if name != BARE
    }
    print("| workers | " + " | ".join(f"{name}: blocks/s" for name in medians) + " |" + " share |" * len(shares))
    print("|---|" + "---|" * (len(medians) + len(shares)))
    for workers in counts:
        cells = [f"{by[workers]:,.0f}" for by in medians.values()]
        cells += [f"{by[str(workers)]:.0%}" for by in shares.values()]
        print(f"| {workers} | {' | '.join(cells)} |")
    print(json.dumps({"quick": options.quick, "blocks_per_second": medians, "share_of_daisy": shares}))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, action="append", help="repeatable; default: 1, 8 and 32")
    parser.add_argument("--executor", action="append", choices=["local", "slurm"], help="repeatable; default: all")
    parser.add_argument("--repeats", type=int, help="default: 3; 1 with --quick")
    parser.add_argument("--milliseconds", type=float, default=0.0, help="that each block takes; default: none")
    parser.add_argument("--side", type=int, help="blocks along each axis; default: 46; 22 with --quick")
    parser.add_argument("--folder", help="where runs are put; a folder that all nodes see")
    parser.add_argument("--quick", action="store_true", help="few blocks, few workers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
