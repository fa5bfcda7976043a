"""Worker processes on this machine."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from daisy._daisy import EXIT_BLOCK_TIMEOUT
from typing_extensions import override

from ...errors import writing
from ...run import Run
from ...stop_signals import interrupts_blocked
from ..blocks.process import PARENT
from ..blocks.stage import BlockTask
from ..tracking.failures import KILLED_FOR_MEMORY
from ..tracking.memory import SIGNS, kills_for_memory
from .hung_workers import GRACE_SECONDS, LOOK_SECONDS, HangWatch
from .session import DriverSession
from .worker_processes import (
    ProcessExecutor,
    WorkerLost,
    WorkerStarter,
    last_words,
    worker_command,
    worker_environment,
)

logger = logging.getLogger(__name__)

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

    A terminal sends Ctrl-C to all processes of a command. The driver ends its workers; of themselves they would die,
    which counts as a failure of the blocks under way.

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
    with log.open("ab") as output, interrupts_blocked():
        process = subprocess.Popen(
            worker_command(task), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    return process, log


def _run_worker(session: DriverSession, task: BlockTask, worker: str, context: str) -> None:
    """Start a worker, and wait until it ends."""
    kills = kills_for_memory()
    process, log = start_process(session.run, task, worker, context)
    printed = log.stat().st_size
    with session.ended_by(process.kill):
        lost = _wait(process, HangWatch(task, worker, lambda: session.is_over(task)))
    if process.returncode == 0 or session.stopping.is_set() or (lost and session.is_over(task)):
        return
    words = last_words(log) if log.stat().st_size > printed else ""
    cause = lost or _cause(process.returncode, session.run)
    if process.returncode == -signal.SIGKILL and not lost and kills_for_memory() > kills:
        cause = KILLED_FOR_MEMORY
    reason = f"{cause}{f' ({words})' if SIGNS.search(words) else ''}; its log: {log}"
    session.worker_died(task, worker, f"its worker {reason}")
    session.note_end(task, worker, f"its worker {reason}")
    raise WorkerLost(f"worker {worker} {reason}{f': {words}' if words else ''}")


def _wait(process: subprocess.Popen[bytes], watch: HangWatch) -> str | None:
    """Wait until a worker ends, or is lost: then it is killed. Why it was lost; None if it ended by itself."""
    waiting = threading.Thread(target=process.wait, daemon=True)  # a wait with a time limit looks 20 times a second
    waiting.start()
    while waiting.is_alive():
        waiting.join(LOOK_SECONDS)
        lost = watch.has_ended() if waiting.is_alive() else None
        if lost is not None:
            logger.warning("a worker %s; it is killed", lost)
            process.kill()
            waiting.join(GRACE_SECONDS)  # one that hangs in the kernel does nothing more when that lets go of it
            return lost
    return None


def _cause(status: int, run: Run) -> str:
    if status == EXIT_BLOCK_TIMEOUT:
        return f"took longer than cluster.block_timeout ({run.config.cluster.block_timeout} s)"
    if status < 0:
        return f"died of signal {-status}"
    return f"ended with status {status}"
