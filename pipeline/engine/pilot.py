"""A pilot: a few blocks computed by as many processes as there will be workers, to predict time and memory of all.

What the blocks stored counts: the run goes on with the others.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..run import Run
from ..search_path import safe_search_path
from ..terminal import tracked
from ..units import counted, duration, memory_size
from ..volumes import limit_storage_threads
from .blocks.process import WORKER, limit_threads, peak_memory, thread_environment
from .blocks.stage import BlockTask, Stage
from .chain import check_stages
from .plan import read_voxels
from .tracking.driver_lock import only_driver
from .tracking.markers import done_blocks
from .tracking.progress import Progress, StageStates, begin, drop_stale, refuse_stale

logger = logging.getLogger(__name__)

CONFIDENCE = 0.95
NEAR_TIMEOUT = 0.5
"""Blocks that take this share of the timeout are worth a warning: others may be slower still."""


@dataclass(frozen=True)
class WorkerCost:
    """What one process measured.

    Attributes:
        start_seconds: from its start to its first block.
        voxels: that each of its blocks read.
        seconds: that each of its blocks took.
        peak_memory: bytes.
    """

    start_seconds: float
    voxels: tuple[int, ...]
    seconds: tuple[float, ...]
    peak_memory: int


@dataclass(frozen=True)
class Pilot:
    """What a pilot tells about the blocks of a task that are left.

    Attributes:
        task: the task.
        costs: of each process.
        read_voxels: voxels that all blocks left to compute read.
        blocks: how many are left: neither done nor empty.
    """

    task: BlockTask
    costs: tuple[WorkerCost, ...]
    read_voxels: int
    blocks: int

    @cached_property
    def _rates(self) -> np.ndarray:
        """Seconds per voxel read, of all blocks but the first of each process, which also warms it up."""
        warm = slice(1, None) if len(self.costs[0].seconds) > 1 else slice(None)
        return np.concatenate([np.array(c.seconds[warm]) / np.array(c.voxels[warm]) for c in self.costs])

    @property
    def workers(self) -> int:
        """Processes that worked at once."""
        return len(self.costs)

    @property
    def slowest(self) -> float:
        """Seconds of the slowest block."""
        return max(max(cost.seconds) for cost in self.costs)

    @property
    def peak_memory(self) -> int:
        """Bytes of the process that needed most."""
        return max(cost.peak_memory for cost in self.costs)

    @property
    def start_seconds(self) -> float:
        """Seconds that a worker needs before it works at full speed."""
        return float(np.median([cost.start_seconds + self._warm_up(cost) for cost in self.costs]))

    def _warm_up(self, cost: WorkerCost) -> float:
        return max(0.0, cost.seconds[0] - cost.voxels[0] * float(self._rates.mean()))

    def predicted_seconds(self) -> tuple[float, float, float]:
        """Wall time of what is left with as many workers: expected, and the bounds of its confidence interval."""
        mean, error = float(self._rates.mean()), self._standard_error()
        per_block = self.read_voxels / self.blocks
        few = self.blocks < 10 * self.workers
        rounds = math.ceil(self.blocks / self.workers) if few else self.blocks / self.workers

        def total(rate: float) -> float:
            return self.start_seconds + rounds * per_block * max(rate, 0.0)

        return total(mean), total(mean - error), total(mean + error)

    def _standard_error(self) -> float:
        """Half the width of the confidence interval of the mean rate."""
        count = len(self._rates)
        if count < 2:
            return float(self._rates[0])
        from scipy import stats  # slow to import, and only pilots need it

        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
        return float(quantile * self._rates.std(ddof=1) / math.sqrt(count))


def log_pilots(run: Run, stages: Sequence[Stage], blocks: int, overwrite: bool) -> None:
    """Compute a few blocks of each block-wise stage that is not done, and say what all that are left would take.

    A stage whose inputs are not there cannot be tried.

    Args:
        run: the run.
        stages: upstream first.
        blocks: computed by each process.
        overwrite: delete stale outputs first.

    Raises:
        UserError: as running the stages would.
    """
    with only_driver(run):
        states = check_stages(stages)
        refuse_stale(stages, overwrite, states)
        drop_stale(stages, states)
        run.save_config()
        _try_stages(stages, blocks, states)


def _try_stages(stages: Sequence[Stage], blocks: int, states: StageStates) -> None:
    for stage in stages:
        for line in _tried(stage, blocks, states):
            logger.info(line)


def _tried(stage: Stage, blocks: int, states: StageStates) -> list[str]:
    """What a few blocks of a stage took, in words, or why there is nothing to try."""
    if states[stage] is Progress.DONE:
        return [f"{stage.name}: everything is done"]
    if not isinstance(stage, BlockTask):
        return [f"{stage.name}: one computation in this process, no blocks to try"]
    if any(states[upstream] is not Progress.DONE for upstream in stage.upstream):
        return [f"{stage.name}: cannot be tried before its inputs are there"]
    begin(stage, states)
    left = np.flatnonzero(~(stage.empty | done_blocks(stage)))
    return report(run_pilot(stage, left, blocks)) if len(left) else [f"{stage.name}: no block is left to try"]


def run_pilot(task: BlockTask, left: np.ndarray, blocks: int) -> Pilot:
    """Compute blocks of a task whose output exists; as in a run, those that are stored are done.

    Args:
        task: the task.
        left: (N,) indices of the blocks to choose from. Those that are done are no good: a kill would cost them.
        blocks: computed by each of the processes, of which there are as many as workers, but no more than cores, nor
            than blocks.
    """
    cluster = task.run.config.cluster
    workers = 1 if cluster.executor == "serial" else min(task.workers, len(os.sched_getaffinity(0)), len(left))
    chosen = left[spread_blocks(len(left), blocks * workers)].tolist()
    shares = [chosen[worker::workers] for worker in range(workers)]
    unopened = replace(task, run=Run(task.run.config))  # open volumes do not pass to other processes
    with (
        thread_environment(cluster.threads_per_worker),
        safe_search_path(),
        ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool,
    ):
        pending = [pool.submit(_measure, unopened, worker, share, time.time()) for worker, share in enumerate(shares)]
        measured = [future.result() for future in tracked(pending, f"{task.name} pilot", workers, "workers")]
    read = task.reader()
    costs = [
        WorkerCost(start, tuple(read(task.grid.block(index)).size for index in share), seconds, memory)
        for share, (start, seconds, memory) in zip(shares, measured, strict=True)
    ]
    voxels = round(read_voxels(task, read) * len(left) / len(task.grid))
    return Pilot(task, tuple(costs), voxels, len(left))


def spread_blocks(count: int, wanted: int) -> list[int]:
    """Blocks evenly spread over the grid, each the middle of its share, in mixed order so that each process gets
    blocks from everywhere.
    """
    wanted = min(wanted, count)
    middles = [(2 * share + 1) * count // (2 * wanted) for share in range(wanted)]
    return [int(block) for block in np.random.default_rng(0).permutation(middles)]


def report(pilot: Pilot) -> list[str]:
    """What a pilot says, in lines for the user."""
    task, (expected, low, high) = pilot.task, pilot.predicted_seconds()
    seconds = [second for cost in pilot.costs for second in cost.seconds]
    timeout = task.run.config.cluster.block_timeout
    lines = [
        f"{task.name}: a block takes {np.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}, "
        f"{counted(len(seconds), 'block')}), {memory_size(pilot.peak_memory)} per worker, "
        f"{pilot.start_seconds:.1f} s to start",
        f"  {counted(pilot.blocks, 'block')} with {counted(pilot.workers, 'worker')}: about {duration(expected)} "
        f"({CONFIDENCE:.0%} of such pilots: {duration(low)} to {duration(high)})",
    ]
    if pilot.slowest > NEAR_TIMEOUT * timeout:
        lines.append(
            f"  the slowest took {pilot.slowest / timeout:.0%} of cluster.block_timeout ({timeout:g} s): raise it, "
            "or make predict.block_size smaller"
        )
    return lines


def _measure(
    task: BlockTask, worker: int, blocks: Sequence[int], asked_at: float
) -> tuple[float, tuple[float, ...], int]:
    """In a process of its own: seconds to start, seconds of each block, and peak memory in bytes."""
    os.environ[WORKER] = str(worker)
    limit_storage_threads(task.run.config.cluster.threads_per_worker)
    with task.process() as process_block:
        limit_threads(task.run.config.cluster.threads_per_worker)
        start_seconds = max(0.0, time.time() - asked_at)
        seconds = []
        for index in blocks:
            started = time.monotonic()
            process_block(task.grid.block(index))
            seconds.append(time.monotonic() - started)
    return start_seconds, tuple(seconds), peak_memory()
