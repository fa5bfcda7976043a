"""Time of training steps and of their parts, measured without making a step wait for its own measurement."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

Part = Callable[[str], AbstractContextManager[object]]
"""Gives the context in which a named part of a step runs."""

STEP = "step"
DATA = "waiting for data"
COPY = "copy to the device"
TEACHER = "teacher forward"
STUDENT = "forward"
SUPERVISED = "supervised loss"
RELATIONS = "graph relation losses"
FLOW = "graph flow losses"
PREDICTIONS = "prediction losses"
BACKWARD = "backward"
OPTIMIZER = "optimizer"
REST = "everything else"
PARTS = (DATA, COPY, TEACHER, STUDENT, SUPERVISED, RELATIONS, FLOW, PREDICTIONS, BACKWARD, OPTIMIZER)
"""In the order of a step. Some have no part in some trainings."""

FIRST_STEPS = 5
"""The first steps warm up caches and count for nothing."""
RECENT = 50
GPU_EVERY = 20
"""On a GPU, each part of one step in so many is measured."""


def untimed(name: str) -> AbstractContextManager[object]:
    """A context for a part of a step that is not timed."""
    return nullcontext()


@dataclass(frozen=True)
class Split:
    """Where the time of a step goes, means over steps.

    Attributes:
        steps: that were measured.
        seconds: of a whole step; validations, checkpoints and pictures are outside of it.
        parts: seconds of each part, `REST` included.
    """

    steps: int
    seconds: float
    parts: Mapping[str, float]

    @property
    def waiting(self) -> float:
        """Share of the time in which there was no data."""
        return self.parts.get(DATA, 0.0) / max(self.seconds, 1e-9)

    def table(self) -> str:
        """One line per part: milliseconds, and share of the step."""
        rows = [(name, seconds) for name, seconds in self.parts.items()] + [("a step", self.seconds)]
        return "\n".join(
            f"  {name:24}{1e3 * seconds:10.1f} ms {seconds / max(self.seconds, 1e-9):6.1%}" for name, seconds in rows
        )


class StepClock:
    """Measures steps and their parts, one after another.

    On a CPU every step is measured. On a GPU the whole step and the wait for data are, by the clock on the wall, and in
    every twentieth step each other part by events in the stream of kernels, which are read when they have long
    passed.

    Args:
        device: where the networks are.
        gpu_every: how many steps there are to one of which the parts are measured, on a GPU.
        now: seconds of the clock on the wall, or of one that other load on the machine does not advance.
    """

    def __init__(
        self, device: torch.device, gpu_every: int = GPU_EVERY, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._now = now
        self._gpu = device.type == "cuda"
        self._every = gpu_every if self._gpu else 1
        self._steps = 0
        self._recent: deque[dict[str, float]] = deque(maxlen=RECENT)
        self._all = _Means()
        self._current: dict[str, float] | None = None
        self._events: list[tuple[dict[str, float], str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step, with all that belongs to it."""
        self._current = {}
        began = self._now()
        yield
        self._current[STEP] = self._now() - began
        self._steps += 1
        if self._steps > FIRST_STEPS:
            self._recent.append(self._current)
            self._all.add(self._current)
        self._current = None
        self._read_events()

    @contextmanager
    def data(self) -> Iterator[None]:
        """Context in which a batch is waited for."""
        began = self._now()
        yield
        self._add(DATA, self._now() - began)

    def part(self, name: str) -> AbstractContextManager[object]:
        """Another part of a step; outside of a step, nothing is measured."""
        if self._current is None or self._steps % self._every:
            return nullcontext()
        return self._timed_by_cuda_events(name) if self._gpu else self._timed_by_wall_clock(name)

    @contextmanager
    def _timed_by_wall_clock(self, name: str) -> Iterator[None]:
        began = self._now()
        yield
        self._add(name, self._now() - began)

    @contextmanager
    def _timed_by_cuda_events(self, name: str) -> Iterator[None]:
        assert self._current is not None
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        yield
        end.record()
        if self._steps >= FIRST_STEPS:
            self._events.append((self._current, name, start, end))

    def _add(self, name: str, seconds: float) -> None:
        if self._current is not None:
            self._current[name] = self._current.get(name, 0.0) + seconds

    def _read_events(self) -> None:
        """Take in what the GPU has passed."""
        while self._events and self._events[0][3].query():
            step, name, start, end = self._events.pop(0)
            step[name] = start.elapsed_time(end) / 1e3
            self._all.add({name: step[name]})

    def recent(self) -> Split | None:
        """The last steps; None before there are any."""
        means = _Means()
        for measured in self._recent:
            means.add(measured)
        return means.split()

    def total(self) -> Split | None:
        """All steps but the first; None before there are any."""
        if self._events:
            self._events[-1][3].synchronize()
            self._read_events()
        return self._all.split()


class _Means:
    """Adds up what was measured of several steps; not every part is measured in each."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, measured: Mapping[str, float]) -> None:
        """Seconds of a step, or of some of its parts."""
        for name, seconds in measured.items():
            self._sums[name] += seconds
            self._counts[name] += 1

    def split(self) -> Split | None:
        """The means; None before there is a whole step."""
        if STEP not in self._counts:
            return None
        means = {name: self._sums[name] / self._counts[name] for name in (STEP, *PARTS) if name in self._counts}
        step = means.pop(STEP)
        return Split(self._counts[STEP], step, means | {REST: max(0.0, step - sum(means.values()))})
