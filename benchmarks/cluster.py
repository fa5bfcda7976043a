"""How many blocks per second workers compute, beside those of bare daisy: with blocks that only take their time.

    python benchmarks/cluster.py --quick
    python benchmarks/cluster.py --workers 1 --workers 8 --workers 32 --executor local --executor slurm

Compared are daisy by itself (its own worker loop, which asks each block for its region, with its tracking), and this
project's workers as processes and,
where `sbatch` is found, as jobs. The clock runs from the moment when all workers are ready to compute until the last
one is told that there are no more blocks: how long processes take to start and to end is another question. There are
as many blocks as should take `--seconds`. Contenders take turns, in changing order; a share is the median of the shares
of all turns. Scheduler and workers share the machine here, so that with many workers on few processors the figures are
lower bounds. A block takes `--milliseconds`, without using the processor.

The second table is processor time per block in that time, of all workers and of the driver: it varies less than rates
do. The last line of the output is one JSON object: medians of blocks per second, and the shares of daisy's rate;
`share_at_10_ms` is that of local workers on blocks of 10 ms, as many as were measured at most (32, if not told
otherwise).
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import daisy.v2 as daisy
from daisy.logging import set_log_basedir
from engine import Nothing, make_run
from funlib.geometry import Coordinate
from typing_extensions import override

from pipeline.engine.blocks.stage import BlockFunction
from pipeline.engine.chain import run_stages
from pipeline.run import Run

PATIENCE = 0.02
BARE = "daisy"
EXPECTED_RATE = 10_000
"""Blocks per second, to choose how many a measurement takes."""


@dataclass(frozen=True)
class Measurement:
    """One turn of a contender.

    Attributes:
        rate: blocks per second.
        workers: microseconds of processor time per block, of all workers.
        driver: the same of the driver.
    """

    rate: float
    workers: float
    driver: float


@dataclass(frozen=True)
class Gated(Nothing):
    """Blocks that do nothing for a while, once a file says that all workers are there."""

    seconds: float = 0.0

    @override
    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        with timed(self.run.directory):
            yield lambda block: work(self.seconds)


def work(seconds: float) -> None:
    """Compute a block: wait, as if for an accelerator."""
    if seconds:
        time.sleep(seconds)


def work_for_daisy(folder: Path, seconds: float) -> None:
    """Run daisy's own worker loop with blocks that do nothing."""
    client = daisy.Client()
    with timed(folder):
        while True:
            with client.acquire_block() as block:
                if block is None:
                    break
                assert block.write_roi.begin.dims == 3  # which block it is, any worker must know
                work(seconds)


@contextmanager
def timed(folder: Path) -> Iterator[None]:
    """A worker's time, between the file that starts the clock and its own last block; left in a file."""
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix="here_", delete=False) as report:
        while not (folder / "go").exists():
            time.sleep(PATIENCE)
        before = time.process_time()
        yield
        report.write(f"{time.time()} {time.process_time() - before}")


class Clock:
    """Opens the gate when all workers have come, and knows when that was.

    Args:
        folder: where workers leave their reports.
        workers: how many are awaited.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self._opened = self._driver = 0.0
        self._folder, self._workers = folder, workers
        threading.Thread(target=self._await_workers, daemon=True).start()

    def _await_workers(self) -> None:
        while len(self._reports()) < self._workers:
            time.sleep(PATIENCE)
        self._opened, self._driver = time.time(), time.process_time()
        (self._folder / "go").touch()

    def stop(self, blocks: int) -> Measurement:
        """What it took, after the driver is through with its blocks."""
        driver = time.process_time() - self._driver
        ends, busy = zip(*(map(float, path.read_text().split()) for path in self._reports()), strict=True)
        microseconds = 1e6 / blocks
        return Measurement(blocks / (max(ends) - self._opened), sum(busy) * microseconds, driver * microseconds)

    def _reports(self) -> list[Path]:
        return list(self._folder.glob("here_*"))


def ours(folder: Path, executor: str, workers: int, side: int, seconds: float) -> Measurement:
    """This project's workers, on side³ blocks."""
    slurm = {"poll": 1.0} if executor == "slurm" else {}
    run: Run = make_run(folder, (2 * side,) * 3, (2, 2, 2), executor=executor, workers=workers, slurm=slurm)
    clock = Clock(folder, workers)
    assert run_stages(run, [Gated(run, seconds)], False)
    return clock.stop(side**3)


def daisys(folder: Path, workers: int, side: int, seconds: float) -> Measurement:
    """daisy by itself, on side³ blocks."""
    folder.mkdir(parents=True)
    set_log_basedir(str(folder / "logs"))
    clock = Clock(folder, workers)
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
    return clock.stop(side**3)


def one_turn(name: str, workers: int, options: argparse.Namespace) -> Measurement:
    """Measure one contender once."""
    pause = options.milliseconds / 1000
    rate = min(EXPECTED_RATE, workers / pause) if pause else EXPECTED_RATE
    side = options.side or round((rate * options.seconds) ** (1 / 3))
    with tempfile.TemporaryDirectory(prefix="emdistill-", dir=options.folder) as place:
        folder = Path(place) / f"{name}-{workers}"
        if name == BARE:
            return daisys(folder, workers, side, pause)
        return ours(folder, name, workers, side, pause)


def main() -> None:
    """Measure every combination in turn, and print medians."""
    options = parse()
    names = [BARE, *options.executor]
    measured: dict[int, dict[str, list[Measurement]]] = {n: {name: [] for name in names} for n in options.workers}
    for turn in range(options.repeats):
        for workers in options.workers:
            for name in names if turn % 2 == 0 else names[::-1]:
                measured[workers][name].append(one_turn(name, workers, options))
    print_report(measured, names, options)


def print_report(
    measured: dict[int, dict[str, list[Measurement]]], names: list[str], options: argparse.Namespace
) -> None:
    """Tables of rates and of processor time, and a line of JSON."""
    rates = {name: {str(n): median(m.rate for m in by[name]) for n, by in measured.items()} for name in names}
    shares = {name: {str(n): shares_of_daisy(by, name) for n, by in measured.items()} for name in names[1:]}
    print_row("workers", [f"{name}, blocks/s" for name in names] + [f"share of {name}" for name in shares])
    for n in map(str, measured):
        cells = [f"{rates[name][n]:,.0f}" for name in names]
        cells += [f"{median(by[n]):.0%} ({min(by[n]):.0%} to {max(by[n]):.0%})" for by in shares.values()]
        print_row(n, cells)
    print()
    print_row("workers", [f"{name}, µs per block of workers + driver" for name in names])
    for workers, by in measured.items():
        times = [(median(m.workers for m in by[name]), median(m.driver for m in by[name])) for name in names]
        print_row(str(workers), [f"{busy:.0f} + {driver:.0f}" for busy, driver in times])
    medians = {name: {n: round(median(values), 3) for n, values in by.items()} for name, by in shares.items()}
    result = {"quick": options.quick, "blocks_per_second": rates, "share_of_daisy": medians}
    if options.milliseconds == 10 and "local" in medians:
        result["share_at_10_ms"] = medians["local"][str(max(measured))]
    print(json.dumps(result))


def shares_of_daisy(by_name: dict[str, list[Measurement]], name: str) -> list[float]:
    """Of every turn, a contender's rate as a part of the rate that daisy had in the same turn."""
    return [one.rate / bare.rate for one, bare in zip(by_name[name], by_name[BARE], strict=True)]


def print_row(first: str, cells: list[str]) -> None:
    """A row of a table; the first one is underlined."""
    print(f"| {first} | {' | '.join(cells)} |")
    if first == "workers":
        print("|---" * (len(cells) + 1) + "|")


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workers", type=int, action="append", help="repeatable; default: 1, 8 and 32; 32 with --quick"
    )
    parser.add_argument(
        "--executor",
        action="append",
        choices=["local", "slurm"],
        help="repeatable; default: all that are there; local with --quick",
    )
    parser.add_argument("--repeats", type=int, help="turns of each contender; default: 7; 5 with --quick")
    parser.add_argument("--milliseconds", type=float, default=10.0, help="that each block takes; default: 10")
    parser.add_argument("--seconds", type=float, help="that a turn should take; default: 10; 6 with --quick")
    parser.add_argument("--side", type=int, help="blocks along each axis, in place of as many as fit into --seconds")
    parser.add_argument("--folder", type=Path, help="where runs are put; a folder that all nodes see")
    parser.add_argument("--quick", action="store_true", help="few blocks, few turns, 32 local workers")
    options = parser.parse_args()
    options.workers = options.workers or ([32] if options.quick else [1, 8, 32])
    options.executor = options.executor or [
        "local",
        *(["slurm"] if shutil.which("sbatch") and not options.quick else []),
    ]
    options.repeats = options.repeats or (5 if options.quick else 7)
    options.seconds = options.seconds or (6.0 if options.quick else 10.0)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    main()
