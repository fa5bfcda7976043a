"""The block-wise stages as a user knows them: predict, fragments, agglomerate, segment, and all of them chained."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

from ..errors import UserError
from ..run import Run
from .agglomerate import agglomeration
from .executors import run_blocks
from .fragments import FragmentsTask
from .lock import only_driver
from .predict import PredictTask
from .rag_statistics import RagTask
from .scheduling import Outcome
from .segment import SegmentTask
from .stage import BlockTask, DriverStep, Stage
from .summary import log_next_command, record_outcomes, record_step
from .tracking import Progress, begin, progress_of, refuse_or_drop_stale, write_record


def predict(run: Run, overwrite: bool = False) -> bool:
    """Stage 02: raw to `affinities`. Here and below: whether every block is done.

    Raises:
        UserError: no or a wrong checkpoint, a volume smaller than the network's context, or stale output.
    """
    return run_stages(run, prediction_stages(run), overwrite)


def extract_fragments(run: Run, overwrite: bool = False) -> bool:
    """Stage 03: `affinities` to `fragments`."""
    return run_stages(run, fragment_stages(run), overwrite)


def agglomerate(run: Run, overwrite: bool = False) -> bool:
    """Stage 04: `fragments` to the region adjacency graph, and a merge score for each of its edges."""
    return run_stages(run, agglomeration_stages(run), overwrite)


def segment(run: Run, overwrite: bool = False) -> bool:
    """Stage 05: lookup tables and `segmentation/<threshold>` at the configured thresholds."""
    return run_stages(run, segmentation_stages(run), overwrite)


def run_chain(run: Run, overwrite: bool = False) -> bool:
    """Stages 02 to 04 chained: each block moves on as soon as its inputs are there."""
    stages = [*prediction_stages(run), *fragment_stages(run), *agglomeration_stages(run)]
    return run_stages(run, stages, overwrite)


def prediction_stages(run: Run) -> list[Stage]:
    """What stage 02 consists of."""
    return [PredictTask(run)]


def fragment_stages(run: Run) -> list[Stage]:
    """What stage 03 consists of."""
    return [FragmentsTask(run)]


def agglomeration_stages(run: Run) -> list[Stage]:
    """What stage 04 consists of."""
    return [RagTask(run), agglomeration(run)]


def segmentation_stages(run: Run) -> list[Stage]:
    """What stage 05 consists of: one task per threshold.

    Raises:
        UserError: two thresholds are the same to two decimals.
    """
    tasks = [SegmentTask(run, threshold) for threshold in chosen_thresholds(run)]
    if len({task.dataset for task in tasks}) < len(tasks):
        raise UserError("two thresholds are the same to two decimals, which name the datasets", "segment.thresholds")
    return list(tasks)


def chosen_thresholds(run: Run) -> tuple[float, ...]:
    """The thresholds to segment at; `best` is the best one on the validation region, or 0.5 without labels."""
    thresholds = run.config.segment.thresholds
    if thresholds == "best":
        from ..evaluation import best_threshold  # not needed by workers, which import this module too

        return (best_threshold(run),)
    return tuple(thresholds)


def run_stages(run: Run, stages: Sequence[Stage], overwrite: bool) -> bool:
    """Run stages, upstream ones first; what is done is skipped, what is stale is refused or redone.

    Returns:
        Whether every block of every stage is done. After a group of stages that is not, the later ones do not run.

    Raises:
        UserError: the config, the data, stale outputs or another driver forbid it; nothing was changed.
    """
    with only_driver(run):
        for stage in stages:
            stage.check()
        refuse_or_drop_stale(stages, overwrite)
        run.save_config()
        for group in _chained(stages):
            if isinstance(group, DriverStep):
                _run_step(run, group)
            elif not _run_tasks(run, group):
                return False
    log_next_command(stages[-1])
    return True


def _chained(stages: Sequence[Stage]) -> Iterator[DriverStep | list[BlockTask]]:
    """Steps of the driver one by one, and the block tasks between them together."""
    for is_task, group in itertools.groupby(stages, lambda stage: isinstance(stage, BlockTask)):
        if is_task:
            yield [stage for stage in group if isinstance(stage, BlockTask)]
        else:
            yield from (stage for stage in group if isinstance(stage, DriverStep))


def _run_tasks(run: Run, tasks: Sequence[BlockTask]) -> bool:
    todo = [task for task in tasks if progress_of(task) is not Progress.DONE]
    for task in todo:
        begin(task)
    computed = {outcome.task.name: outcome for outcome in run_blocks(run, todo)}
    outcomes = [computed.get(task.name) or Outcome.of_done(task) for task in tasks]
    for outcome in computed.values():
        if outcome.complete:
            write_record(outcome.task, complete=True)
    return record_outcomes(run, outcomes)


def _run_step(run: Run, step: DriverStep) -> None:
    if progress_of(step) is Progress.DONE:
        record_step(run, step, None)
        return
    started = time.monotonic()
    begin(step)
    step.execute()
    write_record(step, complete=True)
    record_step(run, step, time.monotonic() - started)
