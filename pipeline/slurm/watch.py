"""One thread that asks the controller about all jobs of a driver."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType

from ..errors import UserError
from .commands import PENDING, ControllerAway, JobState, job_states

logger = logging.getLogger(__name__)

REPEAT_AFTER = 600.0
"""Seconds between two lines that say the same."""
WAITING_IS_USUAL = 60.0
"""Seconds that all jobs may wait without a word."""
SOON = 1.0
"""The least number of seconds between two questions."""


class JobWatch:
    """Follows jobs until they have ended.

    Args:
        poll: seconds between two questions.
        warn: called with a line for the user: jobs that wait, a controller that does not answer.
    """

    def __init__(self, poll: float, warn: Callable[[str], None] = logger.warning) -> None:
        self._poll, self._warn = poll, warn
        self._jobs: dict[str, Callable[[], None]] = {}
        self._states: dict[str, JobState] = {}
        self._lock = threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._away_since: float | None = None
        self._idle_since: float | None = None
        self._last_line, self._last_time = "", -REPEAT_AFTER

    def __enter__(self) -> JobWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def follow(self, job: str, on_change: Callable[[], None]) -> None:
        """Begin with a job; `on_change` is called at each change of its state."""
        with self._lock:
            self._jobs[job] = on_change

    def forget(self, job: str) -> None:
        """A job is of no more interest."""
        with self._lock:
            self._jobs.pop(job, None)
            self._states.pop(job, None)

    def state(self, job: str) -> JobState | None:
        """What the controller last said of a job; None if it has not been asked yet."""
        return self._states.get(job)

    def ask_soon(self) -> None:
        """Something has happened: do not wait for the next turn."""
        self._wake.set()

    @property
    def away_for(self) -> float:
        """Seconds since the controller stopped to answer; 0 while it does."""
        since = self._away_since
        return 0.0 if since is None else time.monotonic() - since

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self._poll)
            self._wake.clear()
            if not self._stop.is_set():
                self._ask()
            self._stop.wait(min(SOON, self._poll))

    def _ask(self) -> None:
        with self._lock:
            jobs = dict(self._jobs)
        try:
            states = job_states(jobs)
        except (ControllerAway, UserError) as error:
            if self._away_since is None:
                self._away_since = time.monotonic()
            self._warn_once(f"SLURM's controller does not answer ({error}); workers that run go on")
            for on_change in jobs.values():
                on_change()
            return
        if self._away_since is not None:
            self._warn_once("SLURM's controller answers again")
        self._away_since = None
        changed = [job for job, state in states.items() if state != self._states.get(job)]
        with self._lock:
            self._states.update({job: state for job, state in states.items() if job in self._jobs})
        for job in changed:
            jobs[job]()
        self._warn_if_all_wait(states)

    def _warn_if_all_wait(self, states: dict[str, JobState]) -> None:
        waiting = Counter(state.reason for state in states.values() if state.name == PENDING)
        if not waiting or waiting.total() < len(states):
            self._idle_since = None
            return
        self._idle_since = self._idle_since or time.monotonic()
        if time.monotonic() - self._idle_since >= WAITING_IS_USUAL:
            reasons = ", ".join(f"{count} for {reason or 'their turn'}" for reason, count in sorted(waiting.items()))
            self._warn_once(f"all jobs wait: {reasons}")

    def _warn_once(self, line: str) -> None:
        now = time.monotonic()
        if line != self._last_line or now - self._last_time >= REPEAT_AFTER:
            self._warn(line)
            self._last_line, self._last_time = line, now
