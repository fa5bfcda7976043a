"""Workers as SLURM jobs, one job per worker.

A worker outlives its jobs: when the cluster ends one (time limit, preemption, a lost node), the next one is submitted
in its place, and daisy, which waits for the worker in a thread, hears nothing of it. What the job itself did wrong (a
crash, too much memory) costs the block under way a try, and the stage one of its `cluster.worker_restarts`.

No job is left behind: they are cancelled when nothing is left for them to do, when the driver is told to stop, and,
after a driver that was killed, by the next one, before it begins; orphans have ended by then, with their connection.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import override

from ...errors import UserError
from ...run import Run
from ...slurm import (
    ControllerAway,
    JobState,
    JobWatch,
    Rejected,
    address_for_workers,
    cancel,
    jobs_named,
    test_submission,
)
from ..blocks.stage import BlockTask
from ..tracking.failures import end_early
from ..tracking.worker_records import DONE, read_worker_record
from ..tracking.worker_spec import worker_key
from ..workers.driver_connection import WorkerConnection
from ..workers.worker import STAGE_ENDS_EARLY
from .hung_workers import HangWatch
from .session import DriverSession
from .slurm_jobs import WorkerJob, cancel_former_jobs, job_prefix
from .worker_processes import ProcessExecutor, WorkerLost, WorkerStarter, last_words

logger = logging.getLogger(__name__)

RETURNS = 100
"""Times that a block may come back from jobs that the cluster ended, besides its tries."""
FAILED_STARTS = 3
"""When so many jobs have ended before their worker reached the driver, and none has ever reached it, the stage ends."""
CLUSTERS_DOING = {"TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "CANCELLED", "DEADLINE", "REVOKED", "GONE"}
"""States of jobs that did nothing wrong."""
SIGNS_OF_MEMORY = re.compile(r"oom[-_ ]?kill|out[-_ ]of[-_ ]memory|exceeded (job|step|virtual)? ?memory limit", re.I)
LAST_SECONDS = 10.0
"""How long to wait for the last jobs of a stage."""
RETRY_SECONDS = 5.0
"""Between two attempts to submit while the controller is away; while it refuses more jobs, ten times that."""


class SlurmExecutor(ProcessExecutor):
    """Workers as jobs of a SLURM cluster, which share the run directory's file system."""

    returns = RETURNS

    @override
    def check(self, run: Run, tasks: Sequence[BlockTask]) -> None:
        """Ask the cluster whether it would take the jobs of tasks, and whether workers would find this machine.

        Raises:
            UserError: it would not, its controller does not answer, SLURM is not installed here, or this machine has
                no such address.
        """
        self.address(run)
        try:
            jobs_named(job_prefix(run))
        except ControllerAway as error:
            raise UserError(f"SLURM's controller does not answer: {error}", "cluster.executor") from error
        for task in tasks:
            own = run.config.cluster.slurm.stage(task.stage)
            where = "cluster.slurm" if own is None else f"cluster.slurm.stages.{task.stage}"
            job = WorkerJob(run, task, "0", "")
            try:
                test_submission(job.options, job.script)
            except Rejected as error:
                raise UserError(f"SLURM refuses the jobs of {task.stage}: {error}", where) from error
            except ControllerAway as error:
                raise UserError(f"SLURM's controller does not answer: {error}", "cluster.executor") from error

    @override
    def address(self, run: Run) -> str:
        return address_for_workers(run.config.cluster.slurm.address)

    @contextlib.contextmanager
    @override
    def worker_starter(self, session: DriverSession) -> Iterator[WorkerStarter]:
        prefix = job_prefix(session.run)
        cancel_former_jobs(prefix)
        with JobWatch(session.run.config.cluster.slurm.poll) as watch:
            workers = SlurmWorkers(session, watch, prefix)
            try:
                yield workers.run_worker
            finally:
                workers.cancel_all()


@dataclass
class SlurmWorkers:
    """The workers of a driver.

    Attributes:
        session: the driver.
        watch: what the controller says of their jobs.
        prefix: how the names of their jobs begin.
    """

    session: DriverSession
    watch: JobWatch
    prefix: str
    _failed_starts: int = 0
    _any_arrived: bool = False
    _any_accepted: bool = False
    _said_goodbye: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run_worker(self, task: BlockTask, worker: str, context: str) -> None:
        """Run one worker, through as many jobs as it takes.

        Raises:
            WorkerLost: it died, or the cluster lets it do nothing.
        """
        slurm = self.session.run.config.cluster.slurm
        changed = self.session.changes_of(task)
        fruitless = 0
        for attempt in itertools.count():
            if self.session.needs_no_worker(task):
                return
            name = worker if attempt == 0 else f"{worker}.{attempt}"
            reason = self._run_job(task, name, context, changed)
            if reason is None:
                return
            record = read_worker_record(task, name)
            fruitless = 0 if record is not None and record.done > 0 else fruitless + 1
            if fruitless > slurm.resubmissions:
                raise WorkerLost(
                    f"worker {worker} is given up: {fruitless} jobs in a row did no block, the last: {reason}"
                )
            logger.info("%s: worker %s: %s; another job takes its place", task.name, worker, reason)

    def cancel_all(self) -> None:
        """Cancel what is left: jobs that wait, and jobs whose submission SLURM did not answer.

        Those whose workers have said good-bye end by themselves; they are waited for, so that none is left.
        """
        with contextlib.suppress(ControllerAway):
            cancel(set(jobs_named(self.prefix)) - self._said_goodbye)
            deadline = time.monotonic() + LAST_SECONDS
            while jobs_named(self.prefix) and time.monotonic() < deadline:
                time.sleep(0.2)

    def _run_job(self, task: BlockTask, worker: str, context: str, changed: threading.Event) -> str | None:
        """One job of a worker, from submission to its end.

        Returns:
            Why it needs another one; None if it is not needed any more.

        Raises:
            WorkerLost: it died of itself.
        """

        def on_change() -> None:
            changed.set()
            self.watch.ask_soon()

        connection = self.session.server.expect(worker_key(task, worker), on_change)
        worker_job = WorkerJob(self.session.run, task, worker, context)
        job = self._submit(task, worker, worker_job, changed)
        if job is None:
            return None
        self.watch.follow(job, changed.set)
        try:
            return self._watch_job(task, worker, job, worker_job.log(job), connection, changed)
        finally:
            self.watch.forget(job)

    def _watch_job(
        self,
        task: BlockTask,
        worker: str,
        job: str,
        log: Path,
        connection: WorkerConnection,
        changed: threading.Event,
    ) -> str | None:
        """Wait until a job's worker has left, or it has ended, or is not needed any more; returns as `_run_job`."""
        hang_watch = HangWatch(task, worker, lambda: self.session.is_over(task))
        while True:
            changed.wait(self.session.run.config.cluster.slurm.poll)
            changed.clear()
            self._any_arrived |= connection.arrived
            if connection.goodbye is not None:
                self._said_goodbye.add(job)
                return None if connection.goodbye in (DONE, STAGE_ENDS_EARLY) else connection.goodbye
            state = self.watch.state(job)
            if state is not None and state.ended:
                return self._ended(task, worker, job, log, connection, state)
            if self.session.stopping.is_set() or (not connection.arrived and self.session.needs_no_worker(task)):
                with contextlib.suppress(ControllerAway):
                    cancel([job])
                return None
            lost = hang_watch.has_ended() if connection.arrived else None
            if lost is not None:
                self._give_up(task, worker, job, log, lost)
                return None
            self._check_controller(worker)

    def _give_up(self, task: BlockTask, worker: str, job: str, log: Path, lost: str) -> None:
        """Cancel a job whose worker will never end by itself.

        Raises:
            WorkerLost: unless the task is over.
        """
        logger.warning("%s: the worker of job %s %s; it is cancelled", task.name, job, lost)
        with contextlib.suppress(ControllerAway):
            cancel([job])
        if self.session.is_over(task):
            return
        reason = f"job {job}, {lost}; its log: {log}"
        self.session.worker_died(task, worker, f"its worker, {reason}")
        raise WorkerLost(f"worker {worker}, {reason}")

    def _ended(
        self, task: BlockTask, worker: str, job: str, log: Path, connection: WorkerConnection, state: JobState
    ) -> str | None:
        """Decide what follows when a job has ended without a good-bye of its worker; returns as `_run_job`."""
        if self.session.stopping.is_set():
            return None
        place = f" on {state.node}" if state.node else ""
        if state.name in CLUSTERS_DOING and not self._took_all_its_time(task, worker, state):
            return f"job {job}{place} ended as {state.name}"
        reason = self._what_went_wrong(task, job, place, state, log)
        if not connection.arrived:
            self._count_failed_start(task, reason)
        self.session.worker_died(task, worker, f"its worker, {reason}")
        raise WorkerLost(f"worker {worker}, {reason}")

    def _what_went_wrong(self, task: BlockTask, job: str, place: str, state: JobState, log: Path) -> str:
        words = last_words(log)
        asked = self.session.run.config.cluster.slurm.job(task.stage).memory
        if state.name == "OUT_OF_MEMORY" or SIGNS_OF_MEMORY.search(words):
            amount = (
                f"it had asked for {asked}" if asked else "it had asked for no amount, so the cluster's default holds"
            )
            return f"job {job}{place}, was killed for memory; {amount} (cluster.slurm.memory); its log: {log}"
        if state.name == "TIMEOUT":
            return (
                f"job {job}{place}, could not finish one block within its time limit "
                f"(cluster.slurm.time); its log: {log}"
            )
        cause = f"{state.name}{f' ({state.reason})' if state.reason else ''}"
        return f"job {job}{place}, ended as {cause}; its log: {log}{f': {words}' if words else ''}"

    def _took_all_its_time(self, task: BlockTask, worker: str, state: JobState) -> bool:
        """Whether a job reached its time limit with its very first block: more jobs would do no better."""
        record = read_worker_record(task, worker)
        if state.name != "TIMEOUT" or record is None:
            return False
        return record.block is not None and record.done + record.failed == 0

    def _count_failed_start(self, task: BlockTask, reason: str) -> None:
        with self._lock:
            self._failed_starts += 1
            hopeless = self._failed_starts >= FAILED_STARTS and not self._any_arrived
        if hopeless:
            end_early(task, f"no worker could begin: {reason}")

    def _submit(self, task: BlockTask, worker: str, worker_job: WorkerJob, changed: threading.Event) -> str | None:
        """Submit a job, waiting for the controller where it must; its id, or None if it is not needed any more.

        Raises:
            WorkerLost: the cluster refuses it, while no other job runs.
        """
        since = time.monotonic()
        while not self.session.needs_no_worker(task):
            try:
                job = worker_job.submit()
            except ControllerAway as error:
                if time.monotonic() - since > self.session.run.config.cluster.slurm.patience:
                    raise WorkerLost(f"SLURM's controller does not answer: {error}") from error
                pause = RETRY_SECONDS
            except Rejected as error:
                if not self._any_accepted:
                    end_early(task, f"SLURM refuses the jobs of {task.stage}: {error}")
                    raise WorkerLost(str(error)) from error
                logger.warning("%s: no job for worker %s now: %s", task.name, worker, error)
                pause = 10 * RETRY_SECONDS
            else:
                self._any_accepted = True
                return job
            changed.wait(pause)
            changed.clear()
        return None

    def _check_controller(self, worker: str) -> None:
        patience = self.session.run.config.cluster.slurm.patience
        if self.watch.away_for > patience:
            raise WorkerLost(f"worker {worker}: SLURM's controller has not answered for {patience:.0f} s")
