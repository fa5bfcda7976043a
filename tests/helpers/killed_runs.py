"""Runs from affinities to a segmentation whose workers meet trouble in the middle of a block, and get killed there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
from toy_tasks import make_trouble, wait_until
from voronoi_run import make_run, store_affinities

from pipeline.engine.blocks.grid import Block
from pipeline.engine.blocks.stage import BlockFunction
from pipeline.engine.chain import run_stages
from pipeline.run import Run
from pipeline.stages.agglomerate import agglomeration
from pipeline.stages.by_script import segmentation_stages
from pipeline.stages.fragments import FragmentsTask
from pipeline.stages.region_graph import RagTask

BLOCKS = 2 * 3 * 3


@contextmanager
def troubled(run: Run, process: AbstractContextManager[BlockFunction]) -> Iterator[BlockFunction]:
    """What a worker opens, with the trouble that files in the run directory ask for."""
    with process as process_block:

        def troubled_block(block: Block) -> None:
            make_trouble(run.directory, block)
            process_block(block)

        yield troubled_block


@dataclass(frozen=True)
class TroubledFragments(FragmentsTask):
    """The fragments, with trouble."""

    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        with troubled(self.run, super().process()) as process_block:
            yield process_block


@dataclass(frozen=True)
class TroubledGraph(RagTask):
    """The graph, with trouble while the worker is connected."""

    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        with troubled(self.run, super().process()) as process_block:
            yield process_block


def prepared(directory: Path, executor: str = "local", **sections: Any) -> Run:
    """A run with affinities; what follows takes worker processes."""
    run = run_for_kills(directory, executor, **sections)
    store_affinities(run)
    return run


def run_for_kills(directory: Path, executor: str = "local", **sections: Any) -> Run:
    """The run, with whatever its directory has."""
    return make_run(
        directory,
        cluster={"executor": executor, "workers": 2, "worker_restarts": 2, "passing_pause": 0.2},
        fragments={"context": [1, 6, 6], "seed_distance": 3, "boundary_threshold": 0.7},
        segment={"thresholds": [0.6]},
        **sections,
    )


def finish(run: Run) -> bool:
    """The command: affinities to segmentation, with trouble in the stage that a file `graph` says or not."""
    in_graph = (run.directory / "graph").exists()
    blocks = [FragmentsTask(run), TroubledGraph(run)] if in_graph else [TroubledFragments(run), RagTask(run)]
    return run_stages(run, [*blocks, agglomeration(run), *segmentation_stages(run)], False)


def finish_and_exit(run: Run) -> None:
    """The command, in a process of its own."""
    raise SystemExit(0 if finish(run) else 1)


def driver_in_the_middle_of(run: Run, block: int) -> tuple[BaseProcess, int]:
    """A driver whose worker is in the middle of a block; with the process id of that worker."""
    (run.directory / "wait").write_text(str(block))
    driver = multiprocessing.get_context("spawn").Process(target=finish_and_exit, args=(run,))
    driver.start()
    waiting = run.directory / "waiting"
    wait_until(lambda: waiting.exists() and waiting.read_text())
    return driver, int(waiting.read_text())


def kill_with_workers(driver: BaseProcess) -> None:
    """Kill a driver and all of its workers, and wait until nothing of them is open any more."""
    victims = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    driver.join()
    wait_until(lambda: all(_has_ended(victim.pid) for victim in victims))


def _has_ended(process: int) -> bool:
    """Whether nothing of a process is left but its exit status."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return True
