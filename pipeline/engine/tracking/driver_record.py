"""What the driver of a run works on, as a file: for the status, and for workers that are added by hand."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...run import Run
from ...small_files import Count, DamagedFile, Moment, ProcessId, read_json_as, replaced_file
from .ownership import PRIVATE_FILE, require_own


@dataclass(frozen=True)
class TaskRecord:
    """A task that the driver works on.

    Attributes:
        task: its name.
        folder: its tracking folder, relative to the run directory.
        blocks: of the whole task.
        done_before: blocks that were done, or are empty, when the driver began with it.
        context: what a worker needs to reach the scheduler, as daisy encodes it; empty until that is known.
    """

    task: str
    folder: str
    blocks: Count
    done_before: Count
    context: str = ""


@dataclass(frozen=True)
class DriverRecord:
    """A driver and what it works on now.

    Attributes:
        host, process: where it runs.
        job: its own batch job; None if it is none.
        executor: `serial`, `local` or `slurm`.
        began: when it began with these tasks, in seconds since 1970.
        ended: when it was through with them; 0 while it works. A driver that was killed leaves 0.
        tasks: what runs together.
    """

    host: str
    process: ProcessId
    job: str | None
    executor: str
    began: Moment
    ended: Moment
    tasks: tuple[TaskRecord, ...]

    @staticmethod
    def of_this_process(executor: str, tasks: tuple[TaskRecord, ...]) -> DriverRecord:
        """The record of a driver that begins now."""
        job = os.environ.get("SLURM_JOB_ID")
        return DriverRecord(socket.gethostname(), os.getpid(), job, executor, time.time(), 0.0, tasks)

    def ended_now(self) -> DriverRecord:
        """The same, through with its tasks."""
        return replace(self, ended=time.time())

    def with_context(self, task: str, context: str) -> DriverRecord:
        """The same, with the way to the scheduler of one task."""
        tasks = tuple(replace(record, context=context) if record.task == task else record for record in self.tasks)
        return replace(self, tasks=tasks)

    def save(self, run: Run) -> None:
        """Write it to `driver.json`.

        Raises:
            UserError: the tracking folder cannot be written.
        """
        with replaced_file(_path(run)) as file:
            os.fchmod(file.fileno(), PRIVATE_FILE)
            file.write(json.dumps(asdict(self), indent=2).encode())


def read_driver(run: Run) -> DriverRecord | None:
    """The record of the newest driver of a run; None if there was none, or it cannot be understood: it only reports."""
    try:
        return read_json_as(_path(run), DriverRecord)
    except DamagedFile:
        return None


def trusted_driver(run: Run) -> DriverRecord | None:
    """The same for whoever acts on it: only if nobody but this user can have written it.

    Raises:
        UserError: it belongs to somebody else, or others may change it.
    """
    try:
        require_own(_path(run), run.tracking)
    except FileNotFoundError:
        return None
    return read_driver(run)


def _path(run: Run) -> Path:
    return run.tracking / "driver.json"
