"""The process of a worker: `python -m pipeline.engine.workers.job SPEC`; the environment has its name and the server.

Statuses of the process: 0 there are no more blocks, or it was told to leave; 3 the stage ends early; 4 the driver
cannot be reached. Anything else is a death.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from ...slurm import end_of_this_job
from ..blocks.process import LOG, PARENT, WORKER
from ..blocks.stage import BlockTask
from ..tracking.worker_records import Attendance, attend, longest_block
from ..tracking.worker_spec import WorkerSpec, worker_key
from .driver_connection import Unreachable, WorkerLine, dial
from .worker import TOLD_TO_STOP, Leave, compute_blocks

ENDED_EARLY, UNREACHABLE = 3, 4
"""Statuses of the process."""
PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""
SPARE = 1.25
"""A block is begun when this many times the longest one so far fits before the time limit."""
TOLD_BY_CLUSTER = "left: told to end by the cluster"
PATIENCE_WITH_BLOCK = 20.0
"""Seconds that a worker which is told to leave gives the block under way to notice; less than SLURM's `KillWait`."""


class JobAttention:
    """Tells a worker to leave before its job is ended: at the signal for it, or when a block would not fit any more.

    Args:
        task: whose blocks the worker computes.
        attendance: the worker's entry.
        line: the way to the driver.
        end: when the job reaches its time limit, in seconds since 1970; None without a limit.
    """

    def __init__(self, task: BlockTask, attendance: Attendance, line: WorkerLine, end: float | None) -> None:
        self._attendance, self._line, self._end = attendance, line, end
        self._longest = longest_block(task)
        self._reason = ""
        self._waits = False
        self._waits_although_told = threading.Event()

    def before_waiting(self) -> None:
        """Leave if told to, or if a block as long as the longest so far does not fit before the time limit."""
        self._waits = True  # before it asks whether it was told: a signal is seen by the one or by the other
        self.may_go_on()

    def before_block(self) -> None:
        """The same: waiting may have taken long."""
        self._waits = False
        self.may_go_on()

    def may_go_on(self) -> None:
        """Leave if told to, or late."""
        if self._reason:
            raise Leave(self._reason)
        if self._end is None:
            return
        left, need = self._end - time.time(), SPARE * max(self._longest, self._attendance.entry.longest)
        if left < need:
            raise Leave(f"left: {max(left, 0):.0f} s to the time limit, a block may take {need:.0f} s")

    def listen(self) -> None:
        """Heed SIGTERM, which announces the time limit, preemption and cancellation.

        The handler ends a block between two steps of Python. While the worker waits for a block, or computes in a
        library, no handler runs; so a thread, which the signal wakes, ends the process when it waits, or after some
        patience.
        """
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._leave_block)
        threading.Thread(target=self._await_signal, args=(reading,), daemon=True).start()

    def _leave_block(self, number: int, frame: FrameType | None) -> None:
        first, self._reason = not self._reason, TOLD_BY_CLUSTER
        if first and self._waits:
            self._waits_although_told.set()
        if first and self._attendance.entry.blocks:
            raise Leave(self._reason)

    def _await_signal(self, reading: int) -> None:
        while os.read(reading, 1) != bytes([signal.SIGTERM]):
            pass
        if not self._waits:
            self._waits_although_told.wait(PATIENCE_WITH_BLOCK)
        with contextlib.suppress(OSError):
            self._attendance.leave(TOLD_BY_CLUSTER)
        self._line.leave(TOLD_BY_CLUSTER)
        os._exit(0)


def main(path: Path) -> int:
    """Do what a spec says; the status of the process."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    worker, parent = os.environ[WORKER], os.environ.get(PARENT)
    if parent is not None:
        die_with(int(parent))
    spec = WorkerSpec.load(path)
    job = os.environ.get("SLURM_JOB_ID")
    attendance = attend(spec.task, worker, job, os.environ.get(LOG, "").replace("%j", job or "%j"))
    try:
        line = dial(spec.address, spec.port, spec.secret, worker_key(spec.task, worker))
    except Unreachable as error:
        attendance.leave(str(error))
        sys.stderr.write(f"{error}\n")
        return UNREACHABLE
    line.watch()
    attention = JobAttention(spec.task, attendance, line, end_of_this_job())
    attention.listen()
    state = compute_blocks(spec.task, attendance, attention)
    line.leave(state)
    return ENDED_EARLY if state == TOLD_TO_STOP else 0


def die_with(parent: int) -> None:
    """End this process when the driver on the same machine does, whatever it is doing then.

    The lifeline says so too, but its thread has to wait for libraries that do not let Python's threads run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def leave_at_once(status: int) -> None:
    """End this process; all of its files are closed by now, and to take Python and its libraries apart takes long."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    leave_at_once(main(Path(sys.argv[1])))
