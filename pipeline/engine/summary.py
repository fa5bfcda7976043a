"""Reports what became of stages: lines in the log, and entries in `summary.json`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..command_names import SCRIPTS, command_line, next_command, place_of, script_after
from ..errors import UserError
from ..run import Run, read_summary, update_summary
from ..units import counted, duration, memory_size, short_number
from .blocks.process import peak_memory
from .blocks.stage import BlockTask, Stage
from .executors.scheduling import Outcome
from .tracking.failures import BlockFailure, failure_folder
from .tracking.lineage import is_outdated

logger = logging.getLogger(__name__)

REDONE_ON_DEMAND = {SCRIPTS[step] for step in ("fragments", "agglomerate", "segment")}
"""Scripts that take `--overwrite`."""
SHOWN_FAILURES = 3
"""Failed blocks of a stage that are described one by one."""


def record_outcomes(run: Run, outcomes: Sequence[Outcome]) -> bool:
    """Log and store what became of tasks; whether every block of each is done."""
    for outcome in outcomes:
        _log(outcome)
    entries: dict[str, dict[str, Any]] = {}
    for stage in dict.fromkeys(outcome.task.stage for outcome in outcomes):
        together = _together([outcome for outcome in outcomes if outcome.task.stage == stage])
        former = read_summary(run).get("stages", {}).get(stage, {})
        entries[stage] = {**former, **_entry(together)}
    complete = all(outcome.complete for outcome in outcomes)
    try:
        update_summary(run, stages=entries)
    except UserError as error:
        if complete:
            raise
        logger.error(error)  # a full disk, perhaps: the errors above say more
    return complete


def record_step(run: Run, stage: Stage, seconds: float | None) -> None:
    """Log and store a step of the driver, which counts as one block; without seconds it was done before."""
    done = seconds is not None
    entry: dict[str, Any] = {
        "blocks_done": int(done),
        "blocks_failed": 0,
        "blocks_skipped": int(not done),
        "blocks_orphaned": 0,
        "blocks_empty": 0,
        "error": None,
    }
    if seconds is not None:
        entry |= _times(seconds, stage.grid.box.size, peak_memory())
        logger.info("%s: wrote %s in %s", stage.name, stage.output, duration(seconds))
    else:
        logger.info("%s: up to date in %s", stage.name, stage.output)
    former = read_summary(run).get("stages", {}).get(stage.stage, {})
    update_summary(run, stages={stage.stage: {**former, **entry}})


def log_next_command(stages: Sequence[Stage]) -> None:
    """Say what to type after stages, unless that is their user's own business; nothing is scored without labels."""
    run = stages[0].run
    script = script_after(max((stage.script for stage in stages), key=place_of))
    if script == SCRIPTS["evaluate"] and _is_surely_unlabelled(run):
        script = script_after(script)
    anew = ["--overwrite"] if script in REDONE_ON_DEMAND and is_outdated(run) else []
    following = next_command(script, run.directory / "config.json", *anew)
    if following:
        logger.info("next: %s", following)


def _is_surely_unlabelled(run: Run) -> bool:
    try:
        return not run.has_labels(run.config.volumes.segment.source)
    except UserError:  # a server that is away, perhaps: whoever scores is told
        return False


def _log(outcome: Outcome) -> None:
    task = outcome.task
    if not outcome.complete:
        _log_failures(outcome)
    elif not outcome.done:
        blocks = counted(outcome.skipped, "block")
        logger.info("%s: up to date, %s%s in %s", task.name, blocks, _of_empty(outcome), task.output)
    else:
        logger.info(
            "%s: wrote %s%s to %s in %s, %s %s/s, at most %s per worker",
            task.name,
            counted(outcome.done, "block"),
            _of_others(outcome),
            task.output,
            duration(outcome.seconds),
            short_number(outcome.voxels / max(outcome.seconds, 1e-9)),
            task.grid_counts,
            memory_size(outcome.peak_memory),
        )
    remark = task.remark() if outcome.complete else ""
    if remark:
        logger.warning("%s: %s", task.name, remark)


def _log_failures(outcome: Outcome) -> None:
    task = outcome.task
    logger.error(
        "%s: %d of %d blocks failed and %d were not computed, first error: %s; the same command tries them again",
        task.name,
        outcome.failed,
        len(task.grid),
        outcome.orphaned,
        outcome.error or "an upstream block failed",
    )
    worth_telling = [failure for failure in outcome.failures if task.can_be_looked_at or failure.trace]
    for failure in worth_telling[:SHOWN_FAILURES]:
        logger.error(describe_failure(task, failure))
    if len(worth_telling) > SHOWN_FAILURES:
        logger.error("%s: all %d failures: %s", task.name, len(outcome.failures), failure_folder(task))


def describe_failure(task: BlockTask, failure: BlockFailure) -> str:
    """Where a failed block lies, its traceback unless the user can mend it, and how to look at it."""
    box = task.grid.block(failure.block).box
    begin, end = task.grid.position(box.begin), task.grid.position(box.end)
    config = task.run.directory / "config.json"
    position = ",".join(f"{(low + high) / 2:.10g}" for low, high in zip(begin, end, strict=True))
    look = [f"--position={position}"] if position.startswith("-") else ["--position", position]  # no option's name
    return "\n".join(
        [
            f"{task.name}: block {failure.block} at {_vector(begin)} to {_vector(end)} nm "
            f"(voxels {_vector(box.begin)} to {_vector(box.end)} of the region): {failure.error}",
            *(f"    {line}" for line in failure.trace.splitlines()),
            *([f"    look: {command_line('07_view.py', config, *look)}"] if task.can_be_looked_at else []),
        ]
    )


def _vector(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.10g}' for value in values)})"


def _of_others(outcome: Outcome) -> str:
    """The blocks that were not computed now: ` (12 were done before, 3 are empty)`, as far as there are any."""
    before = outcome.skipped - outcome.empty
    parts = [f"{before:,} {'was' if before == 1 else 'were'} done before"] if before else []
    parts += [f"{outcome.empty:,} {'is' if outcome.empty == 1 else 'are'} empty"] if outcome.empty else []
    return f" ({', '.join(parts)})" if parts else ""


def _of_empty(outcome: Outcome) -> str:
    return f" ({outcome.empty} of them empty)" if outcome.empty else ""


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    """Several tasks of one stage (one per threshold) as one."""
    return replace(
        outcomes[0],
        done=sum(o.done for o in outcomes),
        skipped=sum(o.skipped for o in outcomes),
        failed=sum(o.failed for o in outcomes),
        orphaned=sum(o.orphaned for o in outcomes),
        empty=sum(o.empty for o in outcomes),
        seconds=sum(o.seconds for o in outcomes),
        voxels=sum(o.voxels for o in outcomes),
        peak_memory=max(o.peak_memory for o in outcomes),
        error=next((o.error for o in outcomes if o.error), None),
    )


def _entry(outcome: Outcome) -> dict[str, Any]:
    """A stage of `summary.json`; when nothing was left to do, the times of the run that did it stay."""
    entry: dict[str, Any] = {
        "blocks_done": outcome.done,
        "blocks_failed": outcome.failed,
        "blocks_skipped": outcome.skipped,
        "blocks_orphaned": outcome.orphaned,
        "blocks_empty": outcome.empty,
        "error": outcome.error,
    }
    if outcome.done:
        entry |= _times(outcome.seconds, outcome.voxels, outcome.peak_memory)
    return entry


def _times(seconds: float, voxels: int, memory: int) -> dict[str, float]:
    """How long it took to compute voxels, and the most memory (bytes) that a process had."""
    return {
        "seconds": round(seconds, 3),
        "voxels_per_second": round(voxels / max(seconds, 1e-9)),
        "peak_worker_memory": memory,
    }
