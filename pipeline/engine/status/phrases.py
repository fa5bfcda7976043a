"""The facts of a status as phrases, for text and page alike."""

from __future__ import annotations

import time as clock
from collections import Counter
from collections.abc import Sequence

from ...command_names import command_line
from ...units import counted, duration, memory_size, short_number
from .model import (
    DriverState,
    DriverStatus,
    RunStatus,
    StageState,
    StageStatus,
    TrainingStatus,
    WorkerState,
    WorkerStatus,
)

SHOWN_WORKERS = 20
"""Workers that are listed unless all are wanted."""

NEARLY_ALL = 0.99
"""Of the voxels: empty blocks and rounded numbers do not count."""


def clock_time(time: float, now: float) -> str:
    """A moment as a clock shows it, with as much of the date as it needs."""
    try:
        then, today = clock.localtime(time), clock.localtime(now)
    except (OverflowError, ValueError, OSError):
        return "at no time that a calendar knows"
    if then[:3] == today[:3]:
        return clock.strftime("%H:%M", then)
    return clock.strftime("%a %H:%M" if abs(time - now) < 5 * 86400 else "%Y-%m-%d %H:%M", then)


def format_driver(driver: DriverStatus, now: float) -> str:
    """Who works on the run, or did."""
    if driver.state is DriverState.NONE:
        return "none has begun"
    where = f"process {driver.process} on {driver.host}" if driver.process is not None else "a process"
    job = f", job {driver.job}" if driver.job else ""
    executor = f", executor {driver.executor}" if driver.executor else ""
    since = f", since {clock_time(driver.began, now)}" if driver.began is not None else ""
    return f"{where}{job}{executor}{since}: {_format_driver_state(driver, now)}"


def _format_driver_state(driver: DriverStatus, now: float) -> str:
    if driver.state is not DriverState.GONE:
        return str(driver.state.value)
    if driver.ended is not None:
        return f"ended at {clock_time(driver.ended, now)}"
    return "is gone; it was stopped or killed"


def format_blocks(stage: StageStatus) -> str:
    """`512 of 1,024 blocks (12 empty)`."""
    empty = f" ({stage.empty:,} empty)" if stage.empty else ""
    if not stage.is_begun:
        return f"{counted(stage.blocks, 'block')}{empty}" if stage.blocks > 1 else ""
    return f"{stage.done + stage.empty:,} of {counted(stage.blocks, 'block')}{empty}"


def format_remaining(stage: StageStatus) -> str:
    """`16 running, 2 failed, 498 left`; of stages that are done or not begun nothing."""
    if stage.state in (StageState.NOT_BEGUN, StageState.DONE, StageState.STALE) or stage.blocks <= 1:
        return ""
    parts = {"running": stage.running, "failed": stage.failed, "left": stage.left}
    return ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)


def format_pace(stage: StageStatus) -> str:
    """`41 blocks/s, 21.5 M voxels/s (last minutes: 38 blocks/s)`; empty if there is nothing to tell."""
    pace = stage.pace
    if pace is None or stage.state is StageState.DONE or (pace.blocks <= 0 and pace.recent_blocks is None):
        return ""
    recent = "" if pace.recent_blocks is None else f" (last minutes: {_rate(pace.recent_blocks, stage)})"
    return f"{_rate(pace.blocks, stage)}{recent}"


def _rate(blocks: float, stage: StageStatus) -> str:
    return f"{short_number(blocks)} blocks/s, {short_number(blocks * stage.voxels_per_block)} voxels/s"


def format_end(stage: StageStatus, now: float) -> str:
    """`done in 3.3 h, Tue 17:22`; empty if that cannot be told."""
    if stage.pace is None or stage.pace.seconds_left is None or stage.pace.end is None or not stage.is_at_work:
        return ""
    return f"done in {duration(stage.pace.seconds_left)}, at {clock_time(stage.pace.end, now)}"


def format_costs(stage: StageStatus) -> str:
    """`took 2.1 min, 3.2 M voxels/s, peak memory 412 MiB`, as far as it is known."""
    parts = []
    if stage.took is not None and stage.voxels_per_second is not None:
        share = stage.took_voxels / stage.voxels
        part = "" if share > NEARLY_ALL else f"the last {100 * share:.2g} % "
        parts += [f"{part}took {duration(stage.took)}", f"{short_number(stage.voxels_per_second)} voxels/s"]
    if stage.peak_memory:
        parts.append(f"peak memory {memory_size(stage.peak_memory)}")
    return ", ".join(parts)


def format_iterations(training: TrainingStatus) -> str:
    """`6,840 of 20,000 iterations`."""
    if not training.is_begun:
        return counted(training.iterations, "iteration")
    return f"{training.done:,} of {counted(training.iterations, 'iteration')}"


def training_details(training: TrainingStatus, now: float) -> list[str]:
    """Everything besides state and iterations that there is to tell of a training."""
    parts = []
    if training.per_second is not None:
        parts.append(f"{short_number(training.per_second)} iterations/s")
    if training.seconds_left is not None and training.end is not None:
        parts.append(f"done in {duration(training.seconds_left)}, at {clock_time(training.end, now)}")
    if training.loss is not None and training.state is not StageState.DONE:
        parts.append(f"loss {training.loss:.4g}")
    if training.validated:
        scores = ", ".join(f"{name} {value:.3f}" for name, value in training.validation.items())
        parts.append(f"validation at {training.validated:,}: {scores}")
    return [*parts, training.note] if training.note else parts


def percent(stage: StageStatus | TrainingStatus) -> str:
    """`51.2 %`, rounded down: 100 % is all of it."""
    return f"{int(1000 * stage.fraction) / 10:.1f} %"


def details(stage: StageStatus, now: float) -> list[str]:
    """Everything besides state and blocks that there is to tell of a stage."""
    phrases = [format_remaining(stage), format_pace(stage), format_end(stage, now), format_costs(stage), stage.note]
    return [phrase for phrase in phrases if phrase]


def format_worker_state(worker: WorkerStatus) -> str:
    """`busy`, or `left: cannot reach the driver`."""
    return f"{worker.state.value}: {worker.reason}" if worker.reason else worker.state.value


def format_place(worker: WorkerStatus) -> str:
    """`process 1234` or `job 77`."""
    return f"job {worker.job}" if worker.job else f"process {worker.process}"


def worker_summary(workers: Sequence[WorkerStatus]) -> str:
    """`2 slow, 98 busy, on 12 nodes`."""
    counts = Counter(worker.state for worker in workers)
    summary = ", ".join(f"{counts[state]} {state.value}" for state in WorkerState if counts[state])
    nodes = len({worker.host for worker in workers if worker.state.is_present})
    return f"{summary}, on {counted(nodes, 'node')}" if nodes else summary


def workers_to_show(workers: Sequence[WorkerStatus], all_workers: bool) -> Sequence[WorkerStatus]:
    """Those that are listed: unless all_workers is wanted, who is through or was left behind only as a count."""
    if all_workers:
        return workers
    return [worker for worker in workers if worker.state.is_trouble or worker.state.is_present][:SHOWN_WORKERS]


def headline(status: RunStatus) -> str:
    """The state of the run in a few words."""
    failed = sum(stage.failed for stage in status.stages)
    trouble = f", {counted(failed, 'failed block')}" if failed else ""
    if status.is_done:
        return "done"
    if status.goes_on:
        return f"going on{trouble}"
    if not status.is_begun:
        return "not begun"
    states = {part.state for part in status.parts}
    if StageState.FAILED in states:
        return f"failed{trouble}"
    return "stopped" if StageState.STOPPED in states else "not complete"


def results(status: RunStatus) -> list[StageStatus]:
    """The segmentations that are done."""
    return [stage for stage in status.stages if stage.stage == "segment" and stage.state is StageState.DONE]


def view_command(status: RunStatus) -> str:
    """What to type to look at them."""
    return command_line("07_view.py", status.config)
