"""Workers that join a run which is under way: more jobs, or processes of another machine with the same file system."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...errors import UserError
from ...rag import password_in_environment
from ...run import Run
from ...slurm import ControllerAway, Rejected
from ...units import counted
from ..blocks.stage import BlockTask
from ..tracking.driver_lock import lock_state
from ..tracking.driver_record import DriverRecord, trusted_driver
from ..tracking.markers import marked_blocks
from ..tracking.worker_spec import SPEC, WorkerSpec
from ..workers.driver_connection import is_loopback
from ..workers.worker import OUTSIDER
from .local import start_process
from .slurm_jobs import WorkerJob

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JoinableTask:
    """A task that takes more workers.

    Attributes:
        spec: what its driver tells its workers.
        context: the way to its scheduler.
    """

    spec: WorkerSpec
    context: str

    @property
    def task(self) -> BlockTask:
        """The task, as its driver runs it."""
        return self.spec.task


def add_workers(run: Run, count: int, stage: str | None = None, dry_run: bool = False) -> bool:
    """Add workers to a run: as jobs with the executor `slurm`, otherwise as processes of this machine.

    Jobs are submitted, and live by themselves. Processes are waited for.

    Args:
        run: the run; its driver is at work, here or elsewhere.
        count: of workers.
        stage: name of the task to help with; None for the first one that is not finished.
        dry_run: only say what would be done.

    Returns:
        Whether all processes ended as they should.

    Raises:
        UserError: there are none to add, the run is somebody else's, no driver is at work, none of its tasks is meant,
            its workers cannot be joined from here, or the cluster refuses the jobs.
    """
    if count < 1:
        raise UserError(f"{count} workers cannot be added; 1 or more", "--workers")
    joined = _joinable_task(run, _driver_at_work(run), stage)
    names = [f"added-{socket.gethostname()}-{os.getpid()}-{number}" for number in range(count)]
    jobs = run.config.cluster.executor == "slurm"
    if dry_run:
        logger.info("%s would get %d more %s", joined.task.name, count, "jobs" if jobs else "processes here")
        return True
    with password_in_environment(run.config.rag.url):
        if jobs:
            _submit(run, joined, names)
            return True
        return _start(run, joined, names)


def _driver_at_work(run: Run) -> DriverRecord:
    driver = trusted_driver(run)
    if driver is None or driver.ended or lock_state(run).held is False:
        raise UserError("no driver is at work on this run; start one first", str(run.directory))
    return driver


def _joinable_task(run: Run, driver: DriverRecord, stage: str | None) -> JoinableTask:
    open_tasks = [record for record in driver.tasks if record.context]
    if not open_tasks:
        raise UserError(f"the driver on {driver.host} has not started its first worker yet", str(run.directory))
    known = ", ".join(record.task for record in driver.tasks)
    if stage is not None and stage not in {record.task for record in open_tasks}:
        raise UserError(f'the driver does not work on "{stage}" now, but on {known}', "--stage")
    chosen = [record for record in open_tasks if stage in (None, record.task)]
    for record in chosen:
        joined = JoinableTask(
            WorkerSpec.load(run.directory / record.folder / SPEC, run.tracking),
            re.sub(r"worker_id=-?\d+", f"worker_id={OUTSIDER}", record.context),
        )
        if not (marked_blocks(joined.task) | joined.task.empty).all():
            return joined
    raise UserError(f"all blocks of {known} are done or under way", str(run.directory))


def _submit(run: Run, joined: JoinableTask, names: Sequence[str]) -> None:
    for name in names:
        try:
            job = WorkerJob(run, joined.task, name, joined.context).submit()
        except (Rejected, ControllerAway) as error:
            raise UserError(f"SLURM refuses the job: {error}", "cluster.slurm") from error
        logger.info("%s: job %s submitted", joined.task.name, job)


def _start(run: Run, joined: JoinableTask, names: Sequence[str]) -> bool:
    driver = trusted_driver(run)
    if is_loopback(joined.spec.address) and driver is not None and driver.host != socket.gethostname():
        raise UserError(
            f"the driver runs on {driver.host} and takes workers of its own machine only; run this there",
            "cluster.executor",
        )
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_process(run, joined, name)) for name in names]
        logger.info("%s: %s more; Ctrl-C ends what was added", joined.task.name, counted(len(names), "worker"))
        return all([process.wait() == 0 for process in processes])  # noqa: C419  every one is waited for


@contextlib.contextmanager
def _process(run: Run, joined: JoinableTask, name: str) -> Iterator[subprocess.Popen[bytes]]:
    process, _ = start_process(run, joined.task, name, joined.context)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
