"""How long a training waits for its batches, and how many processes would prepare them in time."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable

WINDOW = 40
"""Batches that are looked at; the loader may be behind for some of them without being too slow."""
SETTLING = 10
"""Batches that count for nothing after workers have started."""
STARVED = 0.05
"""Share of the time in which a training may wait for data before something should be done about it."""
MOST_WORKERS = 16
"""Each keeps chunks of its own in memory, so `auto` stops here."""


class Supply:
    """Measures how long a training waits for its batches.

    Args:
        now: seconds of the clock on the wall.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self._waits: deque[float] = deque(maxlen=WINDOW)
        self._steps: deque[float] = deque(maxlen=WINDOW)
        self.restart()

    def restart(self) -> None:
        """Begin anew, after the number of workers has changed."""
        self._waits.clear()
        self._steps.clear()
        self._unsettled = SETTLING
        self._last: float | None = None

    def handed_over(self, asked: float, was_ready: bool) -> None:
        """Note that a batch has just been handed over.

        Args:
            asked: when it was asked for, by the same clock.
            was_ready: whether it lay there then. Taking it also costs something, but no worker could spare that.
        """
        now = self.now()
        if self._unsettled > 0:
            self._unsettled -= 1
        elif self._last is not None:
            self._waits.append(0.0 if was_ready else now - asked)
            self._steps.append(asked - self._last)
        self._last = now

    @property
    def waiting(self) -> float | None:
        """Share of the time that goes into waiting; None until enough was seen."""
        if len(self._waits) < WINDOW:
            return None
        wait = statistics.fmean(self._waits)
        return wait / max(wait + self._step, 1e-9)

    @property
    def _step(self) -> float:
        """Seconds between two batches without waiting. Validations and checkpoints lie between some; the median leaves
        them out.
        """
        return statistics.median(self._steps)

    def enough(self, workers: int) -> int:
        """How many workers prepare a batch in the time of a step, as far as `workers` have shown.

        Args:
            workers: those at work now; 0 stands for the training process itself.
        """
        wait = statistics.fmean(self._waits)
        making = wait if workers == 0 else workers * (wait + self._step)
        return max(1, math.ceil(making / max(self._step, 1e-9)))


def room_for_workers() -> int:
    """Worker processes that this process's cores have room for beside the training."""
    return max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0)) - 1))


def advice(section: str, waiting: float, workers: int, enough: int) -> str:
    """What to do about a training that waits for data.

    Args:
        section: dotted config path of the training.
        waiting: share of the time.
        workers: that load now; 0 stands for the training process.
        enough: workers that would do.
    """
    told, room = f"{waiting:.0%} of the time goes into waiting for data", room_for_workers()
    if workers < room:
        return f"{told}; raise {section}.loader_workers from {workers} to {min(enough, room)}, or set it to auto"
    return (
        f"{told}; {enough} processes would load it fast enough, but this machine has cores for no more than {room} "
        f"({section}.loader_workers): use more cores, or augment less (augment.elastic costs most)"
    )
