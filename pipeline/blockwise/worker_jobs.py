"""The batch job of one worker: its name, what it asks for, what it runs; and the jobs that an earlier driver left."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from pathlib import Path

from ..errors import UserError
from ..run import Run
from ..slurm import ControllerAway, cancel, job_options, job_script, jobs_named
from .served import worker_command, worker_environment
from .stage import BlockTask

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 60.0
"""How long to wait until cancelled jobs of an earlier driver are gone."""


def job_prefix(run: Run) -> str:
    """How the names of all jobs of a run begin: its directory's name, and a hash of where that lies."""
    place = hashlib.sha256(str(run.directory.resolve()).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', run.directory.name)[:24]}-{place}."


def sweep(prefix: str) -> None:
    """Cancel the jobs that a killed driver left, and wait until they are gone.

    Raises:
        UserError: the controller does not answer, or jobs do not end.
    """
    deadline = time.monotonic() + SWEEP_SECONDS
    try:
        left = jobs_named(prefix)
        if left:
            logger.warning("cancelling %d jobs of an earlier driver of this run", len(left))
        while left and time.monotonic() < deadline:
            cancel(left)
            time.sleep(0.5)
            left = jobs_named(prefix)
    except ControllerAway as error:
        raise UserError(f"SLURM's controller does not answer: {error}", "cluster.executor") from error
    if left:
        raise UserError(
            f"jobs {', '.join(left)} of an earlier driver do not end; cancel them first", "cluster.executor"
        )


def worker_key(task: BlockTask, worker: str) -> str:
    """Under which name a worker reports to the driver."""
    return f"{task.name}/{worker}"


def worker_job_options(run: Run, task: BlockTask, prefix: str, worker: str, log: Path) -> list[str]:
    """The arguments of `sbatch` for a worker."""
    cluster = run.config.cluster
    return job_options(
        cluster.slurm.job(task.stage),
        name=f"{prefix}{task.name}.w{worker}",
        log=log,
        threads=cluster.threads_per_worker,
        grace=cluster.slurm.grace,
    )


def worker_job_script(run: Run, task: BlockTask, worker: str, context: str, log: str) -> str:
    """What a worker's job runs."""
    return job_script(
        run.config.cluster.slurm.job(task.stage).setup or (),
        worker_environment(run, worker, context, log),
        worker_command(task),
    )
