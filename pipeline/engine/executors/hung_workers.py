"""Notices workers that will never end by themselves: stopped, or hung in a system call, where no watchdog runs.

A worker ends by itself when a block takes longer than `cluster.block_timeout`, and daisy gives the block to another.
One that is stopped (SIGSTOP, a debugger, a suspended job) or waits for a file server that does not answer cannot do
that, and a driver that waited for it would wait for ever. So the driver looks at the worker's record, by its own
clock: when something in it has stood still for longer than a block may take, and a grace, the worker is lost. One that
has no block says that it lives every few seconds, and is waited for less long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator

from ..blocks.stage import BlockTask
from ..tracking.worker_records import WorkerRecord, read_worker_record

GRACE_SECONDS = 30.0
"""What a worker gets beyond `cluster.block_timeout`, and to end when its stage has no block left."""
IDLE_SECONDS = 300.0
"""How long a worker without a block may say nothing: many times as long as it does, as it takes to start, or as a file
server hides what it says."""
LOOK_SECONDS = 1.0
"""Between two looks at a record."""


class HangWatch:
    """Tells when one worker will never end by itself.

    Args:
        task: whose blocks it computes.
        worker: its name.
        is_over: whether the task has no block left.
    """

    def __init__(self, task: BlockTask, worker: str, is_over: Callable[[], bool]) -> None:
        self._task, self._worker, self._is_over = task, worker, is_over
        self._since: dict[Hashable, float] = {}
        self._over_since: float | None = None
        self._looked = time.monotonic()

    def has_ended(self) -> str | None:
        """Why the worker is lost; None as long as it may still do something. Call it as often as you like."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return None
        self._looked = now
        record = read_worker_record(self._task, self._worker)
        self._since = {sign: self._since.get(sign, now) for sign in _signs(record)}
        longest = now - min(self._since.values())
        timeout = self._task.run.config.cluster.block_timeout
        is_in_block = record is not None and bool(record.blocks)
        if self._is_over():
            self._over_since = self._over_since if self._over_since is not None else now
            if now - self._over_since <= GRACE_SECONDS:
                return None
            if not is_in_block:
                return "did not end although no block was left"
        elif longest <= (timeout + GRACE_SECONDS if is_in_block else IDLE_SECONDS):
            return None
        than = f"longer than cluster.block_timeout ({timeout} s)" if is_in_block else "without a block"
        return f"gave no sign of life for {longest:.0f} s, {than}: it was stopped, or hung in a system call"


def _signs(record: WorkerRecord | None) -> Iterator[Hashable]:
    """What must not stand still: each block under way; without one what it said last, or that it has not begun."""
    if record is None:
        yield "not begun"
    elif record.blocks:
        yield from record.blocks.items()
    else:
        yield "heard", record.heard
