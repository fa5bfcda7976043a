"""Worker processes on this machine."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from daisy._daisy import EXIT_BLOCK_TIMEOUT
from typing_extensions import override

from ...errors import writing
from ...run import Run
from ..blocks.process import PARENT
from ..blocks.stage import BlockTask
from .session import DriverSession
from .worker_processes import (
    ProcessExecutor,
    WorkerLost,
    WorkerStarter,
    last_words,
    worker_command,
    worker_environment,
)

LOOPBACK = "127.0.0.1"


class LocalExecutor(ProcessExecutor):
    """Worker processes on this machine, which no other can reach."""

    @override
    def address(self, run: Run) -> str:
        return LOOPBACK

    @contextlib.contextmanager
    @override
    def worker_starter(self, session: DriverSession) -> Iterator[WorkerStarter]:
        yield functools.partial(_run_worker, session)


def start_process(run: Run, task: BlockTask, worker: str, context: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a worker that dies with this process; and what it prints.

    Args:
        run: whose config says how.
        task: whose blocks it computes.
        worker: its name.
        context: of daisy.
    """
    log = run.logs / task.name / f"worker_{worker}.log"
    with writing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **worker_environment(run, worker, context, str(log)), PARENT: str(os.getpid())}
    with log.open("ab") as output:
        process = subprocess.Popen(
            worker_command(task), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    return process, log


def _run_worker(session: DriverSession, task: BlockTask, worker: str, context: str) -> None:
    """Start a worker, and wait until it ends."""
    process, log = start_process(session.run, task, worker, context)
    with session.ended_by(process.kill):
        status = process.wait()
    if status == 0 or session.stopping.is_set():
        return
    reason = f"{_cause(status, session.run)}; its log: {log}"
    session.worker_died(task, worker, f"its worker {reason}")
    words = last_words(log)
    raise WorkerLost(f"worker {worker} {reason}{f': {words}' if words else ''}")


def _cause(status: int, run: Run) -> str:
    if status == EXIT_BLOCK_TIMEOUT:
        return f"took longer than cluster.block_timeout ({run.config.cluster.block_timeout} s)"
    if status < 0:
        return f"died of signal {-status}" + (" (out of memory?)" if status == -9 else "")
    return f"ended with status {status}"
