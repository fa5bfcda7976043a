"""A worker's batch job: what it asks for, what it runs, and when it must end."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from ..config import JobConfig
from ..errors import UserError
from ..units import counted
from .commands import ControllerAway, query


def job_options(config: JobConfig, *, name: str, log: Path, threads: int, grace: int) -> list[str]:
    """The arguments of `sbatch` for one worker.

    Args:
        config: what the config asks for.
        name: of the job.
        log: what the worker prints; may have `%j` for the job's id.
        threads: of the worker, unless the config asks for a number of processors.
        grace: seconds before the time limit at which the worker is told to end.
    """
    asked = {
        "partition": config.partition,
        "account": config.account,
        "qos": config.qos,
        "time": config.time,
        "mem": config.memory,
        "cpus-per-task": config.cpus or threads,
        "gpus": config.gpus,
        "constraint": config.constraint,
    }
    return [
        f"--job-name={name}",
        f"--output={log}",
        "--open-mode=append",
        "--ntasks=1",
        "--no-requeue",  # the driver submits anew, and knows why
        f"--signal=B:TERM@{grace}",
        *(f"--{option}={value}" for option, value in asked.items() if value is not None),
        *(config.extra or ()),
    ]


def job_in_words(config: JobConfig, *, threads: int) -> str:
    """What a worker's job asks for, for people, with what is left to the cluster.

    Args:
        config, threads: as of `job_options`.
    """
    gpus = counted(config.gpus, "GPU") if isinstance(config.gpus, int) else config.gpus and f"GPUs {config.gpus}"
    asked = {
        "partition": config.partition and f"partition {config.partition}",
        "account": config.account and f"account {config.account}",
        "qos": config.qos and f"qos {config.qos}",
        "constraint": config.constraint and f"constraint {config.constraint}",
        "gpus": gpus,
        "cpus": counted(config.cpus or threads, "CPU"),
        "memory": config.memory and f"memory {config.memory}",
        "time": config.time and f"time {config.time}",
    }
    words = [text for text in asked.values() if text is not None]
    words += config.extra or ()
    left = [f"{name} as the cluster's default" for name in ("partition", "memory", "time") if asked[name] is None]
    return ", ".join(words + left)


def job_script(setup: Sequence[str], environment: Mapping[str, str], command: Sequence[str]) -> str:
    """The text of a batch script: the user's own lines, then the worker in place of the shell, which signals reach so.

    Args:
        setup: lines of shell; the job ends when one fails.
        environment: variables of the worker.
        command: the worker.
    """
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    return "\n".join(["#!/bin/bash", "set -e", *setup, *exports, f"exec {shlex.join(command)}", ""])


def end_of_this_job() -> float | None:
    """When the job that this process is in reaches its time limit, in seconds since 1970; None without a limit."""
    told = os.environ.get("SLURM_JOB_END_TIME")  # since SLURM 23.02
    if told is not None:
        return float(told)
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    try:
        found = re.search(r"\bEndTime=(\S+)", query("scontrol", "show", "job", job, "-o"))
        end = datetime.fromisoformat(found[1]).timestamp() if found else None
    except (ControllerAway, UserError, ValueError):  # no limit is no date; without an answer SLURM's signal must do
        return None
    return None if end is None or end < time.time() else end
