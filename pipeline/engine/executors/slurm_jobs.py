"""The batch job of one worker: its name, what it asks for, what it runs; and the jobs that an earlier driver left."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

from ...errors import UserError, writing
from ...run import Run, place_hash
from ...slurm import ControllerAway, cancel, job_options, job_script, jobs_named, submit
from ..blocks.stage import BlockTask
from .worker_processes import worker_command, worker_environment

logger = logging.getLogger(__name__)

CANCEL_SECONDS = 60.0
"""How long to wait until cancelled jobs of an earlier driver are gone."""


def job_prefix(run: Run) -> str:
    """How the names of all jobs of a run begin: its directory's name, and a hash of where that lies."""
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', run.directory.name)[:24]}-{place_hash(run.directory)}."


def cancel_former_jobs(prefix: str) -> None:
    """Cancel the jobs that a killed driver left, and wait until they are gone.

    Raises:
        UserError: the controller does not answer, or jobs do not end.
    """
    deadline = time.monotonic() + CANCEL_SECONDS
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


class WorkerJob:
    """The batch job of one worker, not submitted yet.

    Args:
        run: whose config says what it asks for.
        task: whose blocks it computes.
        worker: its name.
        context: of daisy.
    """

    def __init__(self, run: Run, task: BlockTask, worker: str, context: str) -> None:
        cluster = run.config.cluster
        asked = cluster.slurm.job(task.stage)
        self._log = run.logs / task.name / f"worker_{worker}_%j.log"
        self.options = job_options(
            asked,
            name=f"{job_prefix(run)}{task.name}.w{worker}",
            log=self._log,
            threads=cluster.threads_per_worker,
            grace=cluster.slurm.grace,
        )
        environment = worker_environment(run, worker, context, str(self._log))
        self.script = job_script(asked.setup or (), environment, worker_command(task))

    def submit(self) -> str:
        """Submit it; its id.

        Raises:
            Rejected, ControllerAway, UserError: see `pipeline.slurm.submit`.
        """
        with writing(self._log):
            self._log.parent.mkdir(parents=True, exist_ok=True)
        return submit(self.options, self.script)

    def log(self, job: str) -> Path:
        """What it prints, once it has an id."""
        return self._log.with_name(self._log.name.replace("%j", job))
