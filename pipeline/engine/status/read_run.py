"""From the files of a run directory to its status."""

from __future__ import annotations

import time as clock
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ...command_names import command_line
from ...errors import UserError
from ...run import Run, read_summary
from ..blocks.stage import Stage
from .model import DriverStatus, Life, RunStatus, StageStatus, Standing, State
from .pace import History
from .read_driver import CLOCK_SLACK, read_driver_status
from .read_stage import Moment, StageFacts, stage_facts

LOOKS = 3
"""Attempts to read files that change meanwhile,"""
PAUSE = 0.1
"""and seconds between them."""


class RunStages(Protocol):
    """What a run consists of."""

    def known(self, run: Run) -> list[Stage]:
        """The stages whose tasks are known by now, upstream ones first.

        Raises:
            UserError: the config asks for what there cannot be.
        """

    def to_come(self, run: Run, known: Sequence[Stage]) -> list[StageStatus]:
        """Stages of which only later ones will tell what their tasks are."""


def read_run_status(run: Run, stages: RunStages, config: Path, history: History | None = None) -> RunStatus:
    """How it stands with a run now. Only files of the run directory are read; nothing is computed or written.

    Args:
        run: the run, in whatever state.
        stages: what it consists of.
        config: where its config was read, for the command to go on with as long as the run has not kept its own.
        history: earlier counts, which this one is added to; None: nobody watches.

    Raises:
        UserError: the config asks for what there cannot be, or files of the run directory are damaged.
    """
    for look in range(1, LOOKS + 1):
        try:
            return _read(run, stages, config, history or History(), clock.time())
        except (FileNotFoundError, ValueError) as error:  # a driver makes or removes files just now
            if look == LOOKS:
                raise UserError(f"cannot be read: {error}", str(run.directory)) from error
        clock.sleep(PAUSE)
    raise AssertionError("unreachable")


def _read(run: Run, of_run: RunStages, config: Path, history: History, time: float) -> RunStatus:
    driver, notice, lock = read_driver_status(run)
    stages = of_run.known(run)
    moment = Moment(
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
    found: list[StageFacts] = []
    for stage in stages:
        found.append(stage_facts(stage, moment, [facts.status for facts in found]))
    statuses = _without_repeated_notes([facts.status for facts in found])
    statuses += of_run.to_come(run, stages)
    history.note(time, {status.name: status.done + status.empty for status in statuses})
    workers = [worker for facts in found for worker in facts.workers]
    own_config = run.directory / "config.json"
    shown_config = own_config if own_config.exists() else config
    return RunStatus(
        directory=str(run.directory),
        config=str(shown_config),
        time=time,
        driver=driver,
        stages=tuple(statuses),
        workers=tuple(sorted(workers, key=lambda worker: list(Standing).index(worker.standing))),
        failures=tuple(failure for facts in found for failure in facts.failures),
        command=_command(statuses, driver, shown_config),
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


def _command(stages: Sequence[StageStatus], driver: DriverStatus, config: Path) -> str:
    """What to type to go on, unless a driver works on blocks or nothing is left."""
    unfinished = [stage for stage in stages if stage.state is not State.DONE]
    if driver.life in (Life.WORKS, Life.UNKNOWN) or not unfinished:
        return ""
    first = unfinished[0]
    return command_line(first.script, config, *(["--overwrite"] if first.state is State.STALE else []))
