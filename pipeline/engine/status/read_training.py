"""The state of a training, from its record and the names of its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..tracking.training_record import TrainingRecord, read_training_record
from .model import DriverState, DriverStatus, StageState, TrainingStatus


@dataclass(frozen=True)
class KnownTraining:
    """A training that a run needs, or that somebody began.

    Attributes:
        name: `teacher`, `student` or `paraphraser`.
        script: workflow script that does it.
        directory: of its checkpoints and its record.
        iterations: in all.
        saved: iterations that the newest checkpoint has; None if only the record tells.
    """

    name: str
    script: str
    directory: Path
    iterations: int
    saved: int | None


def training_status(training: KnownTraining, driver: DriverStatus, time: float) -> TrainingStatus:
    """How it stands with a training.

    Args:
        training: the training.
        driver: who works on the run.
        time: now, in seconds since 1970.
    """
    record = read_training_record(training.directory)
    status = TrainingStatus(
        training.name,
        training.script,
        str(training.directory),
        StageState.NOT_BEGUN,
        done=training.saved or 0,
        iterations=training.iterations,
    )
    if record is None:
        return replace(status, state=_state_of_saved(status))
    status = replace(status, loss=record.loss, validated=record.validated, validation=record.validation)
    if record.ended == 0 and _works(driver, record):
        return _at_work(replace(status, state=StageState.RUNNING, done=record.iteration), record, time)
    status = replace(status, done=record.iteration if training.saved is None else training.saved)
    if status.done >= status.iterations:
        return replace(status, state=StageState.DONE)
    if record.ended and record.error:
        return replace(status, state=StageState.FAILED, note=record.error)
    return replace(status, state=StageState.STOPPED)


def unfinished(trainings: Sequence[TrainingStatus]) -> list[TrainingStatus]:
    """Those that are not done."""
    return [training for training in trainings if training.state is not StageState.DONE]


def _state_of_saved(status: TrainingStatus) -> StageState:
    if status.done == 0:
        return StageState.NOT_BEGUN
    return StageState.DONE if status.done >= status.iterations else StageState.STOPPED


def _works(driver: DriverStatus, record: TrainingRecord) -> bool:
    """Whether the process that trains is the one that has the run directory."""
    at_work = driver.state in (DriverState.WORKS, DriverState.UNKNOWN)
    return at_work and (driver.host, driver.process) == (record.host, record.process)


def _at_work(status: TrainingStatus, record: TrainingRecord, time: float) -> TrainingStatus:
    """With the pace since the process began."""
    seconds, done = time - record.began, record.iteration - record.done_before
    if seconds <= 0 or done <= 0:
        return status
    rate = done / seconds
    left = max(0, status.iterations - record.iteration) / rate
    return replace(status, per_second=rate, seconds_left=left, end=time + left)
