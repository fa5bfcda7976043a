"""The process of a worker: `python -P -m pipeline.engine.workers.job SPEC`; its name stands in the environment.

It ends with status 0 when there are no more blocks or it was told to leave, and said why; anything else is a death.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from ...errors import UserError
from ...slurm import end_of_this_job
from ...terminal import replace_what_cannot_be_printed
from ..blocks.process import LOG, PARENT, WORKER
from ..blocks.stage import BlockTask
from ..tracking.worker_records import WorkerRecordFile, longest_block, open_worker_record
from ..tracking.worker_spec import WorkerSpec, tracking_of, worker_key
from .driver_connection import DriverConnection, Unreachable, Voucher, connect
from .worker import compute_blocks

PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""
SPARE = 1.25
"""A block is begun when this many times the longest one so far fits before the time limit."""
TOLD_BY_CLUSTER = "left: told to end by the cluster"


class TimeLimit:
    """Tells when no block fits any more before the end of the worker's job.

    Args:
        task: whose blocks the worker computes.
        record: of the worker.
        end: when the job reaches its time limit, in seconds since 1970; None without a limit.
    """

    def __init__(self, task: BlockTask, record: WorkerRecordFile, end: float | None) -> None:
        self._record, self._end = record, end
        self._longest = longest_block(task)

    def stop_reason(self) -> str | None:
        """Why no block is begun, if one as long as the longest so far does not fit; None if it does."""
        if self._end is None:
            return None
        left, need = self._end - time.time(), SPARE * max(self._longest, self._record.record.longest)
        if left >= need:
            return None
        return f"left: {max(left, 0):.0f} s to the time limit, a block may take {need:.0f} s"


def leave_at_stop_signal(record: WorkerRecordFile, connection: DriverConnection) -> None:
    """End this process at SIGTERM, which announces the time limit, preemption and cancellation.

    It ends where it is, as if it were killed, but says good-bye first, so that blocks under way cost no try. Python
    calls handlers of signals only between two steps of its main thread, which may compute in a library or wait for a
    block; so a thread waits for the signal.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda number, frame: None)

    def wait() -> None:
        while os.read(reading, 1) != bytes([signal.SIGTERM]):
            pass
        say_goodbye(record, connection, TOLD_BY_CLUSTER)
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def say_goodbye(record: WorkerRecordFile, connection: DriverConnection, reason: str) -> None:
    """Leave: on disk for whoever looks at the run, and to the driver, which may see the disk much later."""
    with contextlib.suppress(OSError):
        record.leave(reason)
    connection.leave(reason)


def main(path: Path) -> None:
    """Be the worker that a spec describes, from its start until it says good-bye."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    worker, parent = os.environ[WORKER], os.environ.get(PARENT)
    if parent is not None:
        die_with(int(parent))
    try:
        spec = WorkerSpec.load(path, tracking_of(path))
    except UserError as error:
        sys.exit(str(error))
    task = spec.task
    job = os.environ.get("SLURM_JOB_ID")
    record = open_worker_record(task, worker, job, os.environ.get(LOG, "").replace("%j", job or "%j"))
    try:
        connection = connect(spec.address, spec.port, spec.secret, worker_key(task, worker))
    except Unreachable as error:
        record.leave(str(error))
        sys.exit(str(error))
    connection.watch()
    record.write_late()
    leave_at_stop_signal(record, connection)
    limit = TimeLimit(task, record, end_of_this_job())
    voucher = Voucher(spec.address, spec.port, spec.secret, worker_key(task, worker))
    gc.freeze()  # a full collection of what the imports made takes as long as several short blocks
    say_goodbye(record, connection, compute_blocks(task, record, limit.stop_reason, voucher.vouch))


def die_with(parent: int) -> None:
    """End this process when the driver on the same machine does, whatever it is doing then.

    The connection to the driver says so too, but its thread has to wait for libraries that do not let Python's threads
    run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def leave_at_once() -> None:
    """End this process; all of its files are closed by now, and to take Python and its libraries apart takes long."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


if __name__ == "__main__":
    replace_what_cannot_be_printed()
    main(Path(sys.argv[1]))
    leave_at_once()
