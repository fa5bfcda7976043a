"""How far a training is, as a file beside its checkpoints: for the status."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ...errors import UserError
from ...small_files import Count, DamagedFile, Moment, Number, ProcessId, read_json_as, replaced_file

PAUSE = 5.0
"""Seconds between two writes."""


@dataclass(frozen=True)
class TrainingRecord:
    """A training, while it goes on and after it has ended.

    Attributes:
        host, process: where it runs or ran.
        began: when that process began with it, in seconds since 1970.
        ended: when that process was through with it; 0 while it trains. One that was killed leaves 0.
        done_before: iterations that were done when it began.
        iteration: iterations done, of `iterations` in all.
        loss: of the last of them; None before there is one.
        validated: iteration of the last validation; 0 before there is one.
        validation: its scores.
        error: why it ended early; empty if it did not, or was stopped by its user.
    """

    host: str
    process: ProcessId
    began: Moment
    ended: Moment
    done_before: Count
    iteration: Count
    iterations: Count
    loss: Number | None = None
    validated: Count = 0
    validation: dict[str, Number] = field(default_factory=dict)
    error: str = ""


class TrainingNotes:
    """Keeps the record of a training that this process does.

    Args:
        directory: of the checkpoints.
        done: iterations done so far.
        total: iterations in all.
        now: a clock in seconds.
    """

    def __init__(self, directory: Path, done: int, total: int, now: Callable[[], float] = time.monotonic) -> None:
        self._directory, self._now = directory, now
        former = read_training_record(directory)
        kept = former is not None and former.validated <= done
        self._record = TrainingRecord(
            socket.gethostname(),
            os.getpid(),
            time.time(),
            0.0,
            done,
            done,
            total,
            validated=former.validated if former is not None and kept else 0,
            validation=former.validation if former is not None and kept else {},
        )
        self._write()

    def advance(self, loss: float) -> None:
        """One more iteration is done."""
        self._record = replace(self._record, iteration=self._record.iteration + 1, loss=_finite(loss))
        if self._now() - self._written >= PAUSE:
            self._write()

    def validation(self, iteration: int, scores: dict[str, float]) -> None:
        """Note the scores of a validation."""
        finite = {name: value for name, value in scores.items() if _finite(value) is not None}
        self._record = replace(self._record, validated=iteration, validation=finite)
        self._write()

    def end(self, error: BaseException | None) -> None:
        """Note that this process is through with it.

        Args:
            error: what ended it early, if anything did.
        """
        failed = error is not None and not isinstance(error, KeyboardInterrupt)
        reason = (str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}") if failed else ""
        self._record = replace(self._record, ended=time.time(), error=" ".join(reason.split()))
        self._write()

    def _write(self) -> None:
        self._written = self._now()
        with replaced_file(_path(self._directory)) as file:
            file.write(json.dumps(asdict(self._record), indent=2).encode())


def read_training_record(directory: Path) -> TrainingRecord | None:
    """The record of the newest training in a folder; None if there is none, or it cannot be understood: it only
    reports.
    """
    try:
        return read_json_as(_path(directory), TrainingRecord)
    except DamagedFile:
        return None


def _finite(value: float) -> float | None:
    """A number that JSON has; None for any other."""
    return float(value) if abs(value) < float("inf") else None


def _path(directory: Path) -> Path:
    return directory / "progress.json"
