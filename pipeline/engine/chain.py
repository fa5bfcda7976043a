"""Runs stages one after another, and block tasks that follow each other together; done ones are skipped."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

from ..config.cluster import ExecutorName
from ..run import Run
from .blocks.stage import BlockTask, DriverStep, Stage
from .executors.run import check_executor, run_blocks
from .executors.scheduling import Outcome
from .summary import log_next_command, record_outcomes, record_step
from .tracking.driver_lock import only_driver
from .tracking.progress import Progress, StageStates, begin, drop_stale, refuse_stale, write_record
from .tracking.temporary import drop_used, forget_drops, lacking_blocks, temporary_tasks


def run_stages(
    run: Run, stages: Sequence[Stage], overwrite: bool, accepted: Callable[[], object] = lambda: None
) -> bool:
    """Run stages, upstream ones first; what is done is skipped, what is stale is refused or redone.

    Args:
        run: the run.
        stages: upstream first.
        overwrite: redo what is stale.
        accepted: called when nothing forbids the stages to run, before anything is deleted or written.

    Returns:
        Whether every block of every stage is done. After a group of stages that is not, the later ones do not run.

    Raises:
        UserError: the config, the data, stale outputs or another driver forbid it; nothing was changed.
    """
    with only_driver(run):
        if not drive(run, stages, overwrite, accepted=accepted):
            return False
    log_next_command(stages)
    return True


def drive(
    run: Run,
    stages: Sequence[Stage],
    overwrite: bool,
    executor: ExecutorName | None = None,
    accepted: Callable[[], object] = lambda: None,
) -> bool:
    """What `run_stages` does while it keeps other drivers away, for whoever does that for longer.

    Args:
        run: the run.
        stages: upstream first.
        overwrite: redo what is stale.
        executor: where blocks are computed, if not where the config says.
        accepted: see `run_stages`.
    """
    executor = executor or run.config.cluster.executor
    states = check_stages(stages)
    tasks = [stage for stage in stages if isinstance(stage, BlockTask) and states[stage] is not Progress.DONE]
    if tasks:
        check_executor(run, tasks, executor)
    refuse_stale(stages, overwrite, states)
    accepted()
    drop_stale(stages, states)
    run.save_config()
    for group in _chained(stages):
        if isinstance(group, DriverStep):
            _run_step(run, group, states)
        elif not _run_tasks(run, group, states, executor):
            return False
    return True


def check_stages(stages: Sequence[Stage]) -> StageStates:
    """Make sure that stages which are not done can run; how far they are, to be handed down.

    Raises:
        UserError: something that one of them needs is missing or does not fit.
    """
    states = StageStates()
    for task in temporary_tasks(stages):
        if lacking_blocks(task, states.__getitem__).any():
            states[task] = Progress.STARTED
    for stage in stages:
        if states[stage] is not Progress.DONE:
            stage.check()
    return states


def _chained(stages: Sequence[Stage]) -> Iterator[DriverStep | list[BlockTask]]:
    """Steps of the driver one by one, and the block tasks between them together."""
    for (is_task, _), group in itertools.groupby(stages, lambda stage: (isinstance(stage, BlockTask), stage.together)):
        if is_task:
            yield [stage for stage in group if isinstance(stage, BlockTask)]
        else:
            yield from (stage for stage in group if isinstance(stage, DriverStep))


def _run_tasks(run: Run, tasks: Sequence[BlockTask], states: StageStates, executor: ExecutorName) -> bool:
    """Compute what is missing of block tasks that follow each other; whether every block of each is done."""
    todo = [task for task in tasks if states[task] is not Progress.DONE]
    for task in todo:
        begin(task, states)
    computed = {outcome.task.name: outcome for outcome in run_blocks(run, todo, executor)}
    for task in temporary_tasks(tasks):
        drop_used(task)  # what was done before, too; while a stage is not recorded as complete, it is not forgotten
    outcomes = [computed.get(task.name) or Outcome.of_done(task) for task in tasks]
    for outcome in computed.values():
        if outcome.complete:
            write_record(outcome.task, complete=True)
    for task in temporary_tasks(outcome.task for outcome in outcomes if outcome.complete):
        forget_drops(task)
    if computed:
        states.clear()
    return record_outcomes(run, outcomes)


def _run_step(run: Run, step: DriverStep, states: StageStates) -> None:
    """Run a step of the driver unless it is done."""
    if states[step] is Progress.DONE:
        record_step(run, step, None)
        return
    started = time.monotonic()
    begin(step, states)
    step.execute()
    write_record(step, complete=True)
    states.clear()
    record_step(run, step, time.monotonic() - started)
