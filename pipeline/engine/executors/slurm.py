"""Workers as SLURM jobs, one job per worker.

A worker outlives its jobs: when the cluster ends one (time limit, preemption, a lost node), the next one is submitted
in its place, and daisy, which waits for the worker in a thread, hears nothing of it. What the job itself did wrong (a
crash, too much memory) costs the block under way a try, and the stage one of its `cluster.worker_restarts`.

No job is left behind: they are cancelled when nothing is left for them to do, when the driver is told to stop, and,
after a driver that was killed, by the next one, before it begins; orphans have ended by then: their lifeline broke.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

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
from ..tracking.worker_records import DONE, read_entry
from ..tracking.worker_spec import worker_key
from ..workers.driver_connection import Line
from ..workers.worker import TOLD_TO_STOP
from .slurm_jobs import WorkerJob, job_prefix, sweep
from .worker_processes import ServedExecutor, Service, WorkerLost, last_words

logger = logging.getLogger(__name__)

RETURNS = 100
"""Times that a block may come back from jobs that the cluster ended, besides its tries."""
STILLBORN = 3
"""When so many jobs have ended before their worker reached the driver, and none has ever reached it, the stage ends."""
CLUSTERS_DOING = {"TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "CANCELLED", "DEADLINE", "REVOKED", "GONE"}
"""States of jobs that did nothing wrong."""
SIGNS_OF_MEMORY = re.compile(r"oom[-_ ]?kill|out[-_ ]of[-_ ]memory|exceeded (job|step|virtual)? ?memory limit", re.I)
LAST_SECONDS = 10.0
"""How long to wait for the last jobs of a stage."""
RETRY_SECONDS = 5.0
"""Between two attempts to submit while the controller is away; while it refuses more jobs, ten times that."""


class SlurmExecutor(ServedExecutor):
    """Workers as jobs of a SLURM cluster, which share the run directory's file system."""

    returns = RETURNS

    def address(self, run: Run) -> str:
        return address_for_workers(run.config.cluster.slurm.address)

    @contextlib.contextmanager
    def staff(self, service: Service) -> Iterator[Callable[[BlockTask, str, str], None]]:
        prefix = job_prefix(service.run)
        sweep(prefix)
        with JobWatch(service.run.config.cluster.slurm.poll) as watch:
            crew = Crew(service, watch, prefix)
            for task in service.tasks:
                crew.check(task)
            try:
                yield crew.live
            finally:
                crew.dismiss()


@dataclass
class Crew:
    """The workers of a driver.

    Attributes:
        service: the driver.
        watch: what the controller says of their jobs.
        prefix: how the names of their jobs begin.
    """

    service: Service
    watch: JobWatch
    prefix: str
    _stillborn: int = 0
    _any_arrived: bool = False
    _any_accepted: bool = False
    _polite: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, task: BlockTask) -> None:
        """Make sure that the cluster would take the jobs of a task.

        Raises:
            UserError: it would not, or its controller does not answer.
        """
        own = self.service.run.config.cluster.slurm.stage(task.stage)
        where = "cluster.slurm" if own is None else f"cluster.slurm.stages.{task.stage}"
        job = WorkerJob(self.service.run, task, "0", "")
        try:
            test_submission(job.options, job.script)
        except Rejected as error:
            raise UserError(f"SLURM refuses the jobs of {task.stage}: {error}", where) from error
        except ControllerAway as error:
            raise UserError(f"SLURM's controller does not answer: {error}", "cluster.executor") from error

    def live(self, task: BlockTask, worker: str, context: str) -> None:
        """The life of one worker, through as many jobs as it takes.

        Raises:
            WorkerLost: it died, or the cluster lets it do nothing.
        """
        slurm = self.service.run.config.cluster.slurm
        news = self.service.news_for(task)
        fruitless = 0
        for attempt in itertools.count():
            if self.service.needs_no_worker(task):
                return
            name = worker if attempt == 0 else f"{worker}.{attempt}"
            reason = self._live_once(task, name, context, news)
            if reason is None:
                return
            entry = read_entry(task, name)
            fruitless = 0 if entry is not None and entry.done > 0 else fruitless + 1
            if fruitless > slurm.resubmissions:
                raise WorkerLost(
                    f"worker {worker} is given up: {fruitless} jobs in a row did no block, the last: {reason}"
                )
            logger.info("%s: worker %s: %s; another job takes its place", task.name, worker, reason)

    def dismiss(self) -> None:
        """Cancel whatever is left: jobs that wait, and those that nobody knows of, their submission not being answered.

        Those whose workers have said good-bye end by themselves; they are waited for, so that none is left.
        """
        with contextlib.suppress(ControllerAway):
            cancel(set(jobs_named(self.prefix)) - self._polite)
            deadline = time.monotonic() + LAST_SECONDS
            while jobs_named(self.prefix) and time.monotonic() < deadline:
                time.sleep(0.2)

    def _live_once(self, task: BlockTask, worker: str, context: str, news: threading.Event) -> str | None:
        """One job of a worker, from submission to its end.

        Returns:
            Why it needs another one; None if it is not needed any more.

        Raises:
            WorkerLost: it died of itself.
        """

        def tell() -> None:
            news.set()
            self.watch.ask_soon()

        line = self.service.lifeline.expect(worker_key(task, worker), tell)
        worker_job = WorkerJob(self.service.run, task, worker, context)
        job = self._submit(task, worker, worker_job, news)
        if job is None:
            return None
        self.watch.follow(job, news.set)
        try:
            return self._accompany(task, worker, job, worker_job.log(job), line, news)
        finally:
            self.watch.forget(job)

    def _accompany(
        self, task: BlockTask, worker: str, job: str, log: Path, line: Line, news: threading.Event
    ) -> str | None:
        while True:
            news.wait(self.service.run.config.cluster.slurm.poll)
            news.clear()
            self._any_arrived |= line.arrived
            if line.goodbye is not None:
                self._polite.add(job)
                return self._left(line.goodbye)
            state = self.watch.state(job)
            if state is not None and state.ended:
                return self._ended(task, worker, job, log, line, state)
            if self.service.stopping.is_set() or (not line.arrived and self.service.needs_no_worker(task)):
                with contextlib.suppress(ControllerAway):
                    cancel([job])
                return None
            self._mind_controller(worker)

    def _left(self, goodbye: str) -> str | None:
        if goodbye == TOLD_TO_STOP:
            raise WorkerLost("the stage ends early")
        return None if goodbye == DONE else goodbye

    def _ended(self, task: BlockTask, worker: str, job: str, log: Path, line: Line, state: JobState) -> str | None:
        """Judge a job whose worker did not say good-bye."""
        if self.service.stopping.is_set():
            return None
        place = f" on {state.node}" if state.node else ""
        if state.name in CLUSTERS_DOING and not self._took_all_its_time(task, worker, state):
            return f"job {job}{place} ended as {state.name}"
        reason = self._what_went_wrong(task, job, place, state, log)
        if not line.arrived:
            self._count_stillborn(task, reason)
        self.service.died(task, worker, f"its worker, {reason}")
        raise WorkerLost(f"worker {worker}, {reason}")

    def _what_went_wrong(self, task: BlockTask, job: str, place: str, state: JobState, log: Path) -> str:
        words = last_words(log)
        asked = self.service.run.config.cluster.slurm.job(task.stage).memory
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
        entry = read_entry(task, worker)
        return (
            state.name == "TIMEOUT" and entry is not None and entry.block is not None and entry.done + entry.failed == 0
        )

    def _count_stillborn(self, task: BlockTask, reason: str) -> None:
        with self._lock:
            self._stillborn += 1
            hopeless = self._stillborn >= STILLBORN and not self._any_arrived
        if hopeless:
            end_early(task, f"no worker could begin: {reason}")

    def _submit(self, task: BlockTask, worker: str, worker_job: WorkerJob, news: threading.Event) -> str | None:
        """Submit a job, waiting for the controller where it must; its id, or None if it is not needed any more.

        Raises:
            WorkerLost: the cluster refuses it, while no other job runs.
        """
        since = time.monotonic()
        while not self.service.needs_no_worker(task):
            try:
                job = worker_job.submit()
            except ControllerAway as error:
                if time.monotonic() - since > self.service.run.config.cluster.slurm.patience:
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
            news.wait(pause)
            news.clear()
        return None

    def _mind_controller(self, worker: str) -> None:
        patience = self.service.run.config.cluster.slurm.patience
        if self.watch.away_for > patience:
            raise WorkerLost(f"worker {worker}: SLURM's controller has not answered for {patience:.0f} s")
