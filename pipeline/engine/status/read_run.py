"""Reads the status of a run from the files of its directory."""

from __future__ import annotations

import time as clock
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ...command_names import SCRIPTS, command_line, given_again
from ...errors import UserError
from ...run import Run, read_summary
from ..blocks.stage import Stage
from .model import DriverState, DriverStatus, RunStatus, StageState, StageStatus, TrainingStatus, WorkerState
from .pace import History
from .read_driver import CLOCK_SLACK, read_driver_status
from .read_stage import RunSnapshot, StageReport, stage_report
from .read_training import KnownTraining, training_status, unfinished

ATTEMPTS = 3
"""How often files that change meanwhile are read."""
PAUSE = 0.1
"""Seconds between attempts."""


class RunStages(Protocol):
    """The stages that a run consists of."""

    def known(self, run: Run) -> list[Stage]:
        """The stages whose tasks are known by now, upstream ones first.

        Raises:
            UserError: the config asks for what there cannot be.
        """

    def to_come(self, run: Run, known: Sequence[Stage]) -> list[StageStatus]:
        """Stages of which only later ones will tell what their tasks are."""

    def trainings(self, run: Run) -> list[KnownTraining]:
        """The trainings that the run needs, and others that somebody began, in the order of work."""


def read_run_status(
    run: Run, stages: RunStages, config: Path, history: History | None = None, settings: Sequence[str] = ()
) -> RunStatus:
    """The status of a run now. Only files of the run directory are read; nothing is computed or written.

    Args:
        run: the run, in whatever state.
        stages: what it consists of.
        config: where its config was read, for the command to go on with unless the run has kept the same.
        history: earlier counts, which this one is added to; None: nobody watches.
        settings: `key=value` that were given beside the config.

    Raises:
        UserError: the config asks for what there cannot be, or files of the run directory are damaged.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _read(run, stages, config, history or History(), clock.time(), settings)
        except (FileNotFoundError, ValueError) as error:  # a driver makes or removes files just now
            if attempt == ATTEMPTS:
                raise UserError(f"cannot be read: {error}", str(run.directory)) from error
        clock.sleep(PAUSE)
    raise AssertionError("unreachable")


def _read(
    run: Run, of_run: RunStages, config: Path, history: History, time: float, settings: Sequence[str]
) -> RunStatus:
    driver, notice, lock = read_driver_status(run)
    stages = of_run.known(run)
    snapshot = RunSnapshot(
        run=run,
        time=time,
        driver=driver,
        notice=notice,
        lock=lock,
        summary=read_summary(run).get("stages", {}),
        summed_up=_is_summed_up(run, driver),
        tasks=Counter(stage.stage for stage in stages),
        history=history,
    )
    reports: list[StageReport] = []
    for stage in stages:
        reports.append(stage_report(stage, snapshot, [report.status for report in reports]))
    statuses = _without_repeated_notes([report.status for report in reports])
    statuses += of_run.to_come(run, stages)
    trainings = tuple(training_status(training, driver, time) for training in of_run.trainings(run))
    history.note(time, {status.name: status.done + status.empty for status in statuses})
    workers = [worker for report in reports for worker in report.workers]
    own_config = run.directory / "config.json"
    given: list[str | Path] = [config, *given_again(settings)]
    return RunStatus(
        directory=str(run.directory),
        config=str(own_config if own_config.exists() else config),
        time=time,
        driver=driver,
        stages=tuple(statuses),
        workers=tuple(sorted(workers, key=lambda worker: list(WorkerState).index(worker.state))),
        failures=tuple(failure for report in reports for failure in report.failures),
        command=_command(trainings, statuses, driver, [own_config] if run.has_saved_config() else given),
        trainings=trainings,
    )


def _without_repeated_notes(stages: Sequence[StageStatus]) -> list[StageStatus]:
    """What keeps several stages from beginning is told once."""
    before = ["", *(stage.note for stage in stages)]
    return [
        replace(stage, note="") if stage.note == note else stage for stage, note in zip(stages, before, strict=False)
    ]


def _is_summed_up(run: Run, driver: DriverStatus) -> bool:
    """Whether `summary.json` was written after the newest driver was through with its tasks."""
    if driver.ended is None or not run.summary.exists():
        return False
    return run.summary.stat().st_mtime >= driver.ended - CLOCK_SLACK


def _command(
    trainings: Sequence[TrainingStatus],
    stages: Sequence[StageStatus],
    driver: DriverStatus,
    config: Sequence[str | Path],
) -> str:
    """What to type to go on, unless a driver works on the run or nothing is left. The last training sees to those
    before it.
    """
    left = [stage for stage in stages if stage.state is not StageState.DONE]
    if driver.state in (DriverState.WORKS, DriverState.UNKNOWN) or not left:
        return ""
    script = SCRIPTS["run"] if driver.all_steps else left[0].script
    imported = [stage for stage in stages if stage.script != SCRIPTS["import"]]
    if unfinished(trainings) and not any(stage.is_begun for stage in imported):
        return command_line(SCRIPTS["run"] if driver.all_steps else trainings[-1].script, *config)
    return command_line(script, *config, *(["--overwrite"] if left[0].state is StageState.STALE else []))
