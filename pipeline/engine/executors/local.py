"""Worker processes on this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from daisy._daisy import EXIT_BLOCK_TIMEOUT

from ...run import Run
from ..blocks.process import PARENT
from ..blocks.stage import BlockTask
from ..workers.job import ENDED_EARLY
from .worker_processes import ServedExecutor, Service, WorkerLost, last_words, worker_command, worker_environment

LOOPBACK = "127.0.0.1"


class LocalExecutor(ServedExecutor):
    """Worker processes on this machine, which no other can reach."""

    def address(self, run: Run) -> str:
        return LOOPBACK

    @contextlib.contextmanager
    def staff(self, service: Service) -> Iterator[Callable[[BlockTask, str, str], None]]:
        yield _Processes(service).live


def start_process(run: Run, task: BlockTask, worker: str, context: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a worker that dies with this process; and what it prints.

    Args:
        run: whose config says how.
        task: whose blocks it computes.
        worker: its name.
        context: of daisy.
    """
    log = run.logs / task.name / f"worker_{worker}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **worker_environment(run, worker, context, str(log)), PARENT: str(os.getpid())}
    with log.open("ab") as output:
        process = subprocess.Popen(
            worker_command(task), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    return process, log


@dataclass
class _Processes:
    """Starts worker processes and sees them end."""

    service: Service

    def live(self, task: BlockTask, worker: str, context: str) -> None:
        """The life of one worker."""
        process, log = start_process(self.service.run, task, worker, context)
        with self.service.ended_by(process.kill):
            status = process.wait()
        self._judge(task, worker, status, log)

    def _judge(self, task: BlockTask, worker: str, status: int, log: Path) -> None:
        if status == 0 or self.service.stopping.is_set():
            return
        if status == ENDED_EARLY:
            raise WorkerLost("the stage ends early")
        reason = f"{_cause(status, self.service.run)}; its log: {log}"
        self.service.died(task, worker, f"its worker {reason}")
        words = last_words(log)
        raise WorkerLost(f"worker {worker} {reason}{f': {words}' if words else ''}")


def _cause(status: int, run: Run) -> str:
    if status == EXIT_BLOCK_TIMEOUT:
        return f"took longer than cluster.block_timeout ({run.config.cluster.block_timeout} s)"
    if status < 0:
        return f"died of signal {-status}" + (" (out of memory?)" if status == -9 else "")
    return f"ended with status {status}"
