"""SLURM's commands: each of them once, with what it says turned into a value or an error.

Nothing asks for accounting: what a job came to is told by `squeue --states=all` as long as the controller remembers it
(`MinJobAge`, five minutes by default).
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..errors import UserError

COMMAND_TIMEOUT = 120.0
"""Seconds; SLURM's own limit of a message is 10, and `sbatch` tries again some times when the controller is busy."""
CONTROLLER_MESSAGES = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Connection timed out",
    "Connection reset",
    "Communication connection failure",
    "Transport endpoint is not connected",
    "Zero Bytes were transmitted or received",
    "Insane message length",
    "Unexpected message received",
    "temporarily unable to accept job",
    "Resource temporarily unavailable",
    "in standby mode",
    "Slurm backup controller",
    "Unable to establish controller machine",
    "No route to host",
    "Network is unreachable",
)
"""What SLURM's commands say when the controller does not answer, or not yet."""
KEPT_VARIABLES = ("SLURM_CONF", "SLURM_CONF_SERVER")
PENDING, RUNNING = "PENDING", "RUNNING"
ACTIVE_STATES = {PENDING, RUNNING, "CONFIGURING", "COMPLETING", "SUSPENDED", "RESIZING", "SIGNALING", "STAGE_OUT"}
ACTIVE_STATES |= {"STOPPED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
GONE = "GONE"
"""State of a job that the controller has forgotten."""


class ControllerAway(Exception):
    """The controller does not answer at the moment; the message is SLURM's."""


class Rejected(Exception):
    """The controller refuses the job; the message is SLURM's."""


@dataclass(frozen=True)
class JobState:
    """State of a job, as the controller reports it.

    Attributes:
        name: as in squeue, in capitals: `PENDING`, `RUNNING`, `TIMEOUT`, …; `GONE` if it is no longer known.
        reason: why it waits, or how it failed.
        node: where it runs or ran; empty before it started.
    """

    name: str
    reason: str = ""
    node: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs or will run."""
        return self.name not in ACTIVE_STATES


def submit(options: Sequence[str], script: str) -> str:
    """Submit a batch job; its id.

    Raises:
        Rejected, ControllerAway, UserError: as `test_submission`.
    """
    answer = _sbatch(["--parsable", *options], script)
    return answer.strip().splitlines()[-1].split(";")[0]


def test_submission(options: Sequence[str], script: str) -> None:
    """Ask whether a job would be taken, without submitting it.

    Raises:
        Rejected: it would not.
        ControllerAway: nobody answers.
        UserError: SLURM's commands are not installed here.
    """
    _sbatch(["--test-only", *options], script)


def job_states(jobs: Collection[str]) -> dict[str, JobState]:
    """The states of jobs; those that the controller has forgotten are `GONE`.

    Raises:
        ControllerAway: nobody answers.
        UserError: SLURM's commands are not installed here.
    """
    if not jobs:
        return {}
    arguments = ["--noheader", "--states=all", f"--jobs={','.join(sorted(jobs))}", "--format=%i|%T|%r|%N"]
    finished = _run(["squeue", *arguments])
    if finished.returncode != 0 and "Invalid job id" not in finished.stderr:
        raise ControllerAway(_error_text(finished))
    states = dict.fromkeys(jobs, JobState(GONE))
    for line in finished.stdout.splitlines():
        job, name, reason, node = line.strip().split("|", 3)
        states[job] = JobState(name, "" if reason == "None" else reason, "" if node == "(null)" else node)
    return states


def jobs_named(prefix: str) -> list[str]:
    """This user's jobs, waiting or running, whose names begin with a text.

    Raises:
        ControllerAway: nobody answers.
        UserError: SLURM's commands are not installed here.
    """
    finished = _run(["squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i|%j"])
    if finished.returncode != 0:
        raise ControllerAway(_error_text(finished))
    pairs = (line.strip().split("|", 1) for line in finished.stdout.splitlines())
    return [job for job, name in pairs if name.startswith(prefix)]


def cancel(jobs: Collection[str]) -> None:
    """Have jobs ended. Those that have ended already are no error.

    Raises:
        ControllerAway: nobody answers.
        UserError: SLURM's commands are not installed here.
    """
    if not jobs:
        return
    finished = _run(["scancel", *sorted(jobs)])
    if finished.returncode != 0 and _is_away(finished.stderr):
        raise ControllerAway(_error_text(finished))


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what an outer job would impose on the jobs that are submitted from inside it."""
    return {
        name: value
        for name, value in environment.items()
        if name in KEPT_VARIABLES or not re.match(r"(SLURM|SLURMD|SRUN|PMI|PMIX)_", name)
    }


def query(*command: str) -> str:
    """What another command of SLURM prints.

    Raises:
        ControllerAway: it failed.
        UserError: SLURM's commands are not installed here.
    """
    finished = _run(list(command))
    if finished.returncode != 0:
        raise ControllerAway(_error_text(finished))
    return finished.stdout


def _sbatch(arguments: Sequence[str], script: str) -> str:
    finished = _run(["sbatch", *arguments], script)
    if finished.returncode == 0:
        return finished.stdout
    raise (ControllerAway if _is_away(finished.stderr) else Rejected)(_error_text(finished))


def _is_away(said: str) -> bool:
    return any(text.lower() in said.lower() for text in CONTROLLER_MESSAGES)


def _run(command: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        raise UserError(
            f"SLURM's command {command[0]} is not on the PATH; run where jobs can be submitted from, or use the "
            "executor local",
            "cluster.executor",
        )
    try:
        return subprocess.run(
            command,
            input=text,
            capture_output=True,
            encoding=sys.getfilesystemencoding(),
            errors="surrogateescape",  # a job's script names files, whose names may be any bytes
            timeout=COMMAND_TIMEOUT,
            env=clean_environment(os.environ),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ControllerAway(f"{command[0]} did not answer within {COMMAND_TIMEOUT:.0f} s") from error


def _error_text(finished: subprocess.CompletedProcess[str]) -> str:
    """The error message of a command, in one line."""
    lines = [line.strip() for line in (finished.stderr or finished.stdout).splitlines() if line.strip()]
    short = [re.sub(r"^\w+: (error: )?", "", line) for line in lines]
    return "; ".join(dict.fromkeys(short)) or f"{finished.args[0]} ended with status {finished.returncode}"
