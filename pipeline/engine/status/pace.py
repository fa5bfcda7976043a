"""How fast blocks get done, and when all will be."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from .model import Pace

WINDOW = 300.0
"""Seconds that count as the last minutes."""
SHORTEST = 30.0
"""Seconds between two counts before they say something; and in less than the window, some block must have got done."""


class History:
    """Counts of finished blocks of the last minutes, kept by whoever watches a run."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, dict[str, int]]] = deque()

    def note(self, time: float, finished: Mapping[str, int]) -> None:
        """Add the counts of a snapshot.

        Args:
            time: in seconds since 1970.
            finished: blocks done or empty, by name of the stage.
        """
        self._counts.append((time, dict(finished)))
        while len(self._counts) > 2 and self._counts[1][0] <= time - WINDOW:
            self._counts.popleft()

    def blocks_per_second(self, stage: str, time: float, finished: int) -> float | None:
        """Over the last minutes up to now; None if the stage was not watched for long enough, or lost blocks."""
        known = [(then, counts[stage]) for then, counts in self._counts if stage in counts]
        if not known:
            return None
        seconds, blocks = time - known[0][0], finished - known[0][1]
        if seconds < SHORTEST or blocks < 0 or (blocks == 0 and seconds < WINDOW):
            return None
        return blocks / seconds


@dataclass(frozen=True)
class Session:
    """What a driver has done for a stage.

    Attributes:
        blocks: finished since it began.
        seconds: since then.
        recent: blocks per second over the last minutes; None if unknown.
    """

    blocks: int
    seconds: float
    recent: float | None


def pace_of(session: Session, left: int, upstream_left: float | None, time: float) -> Pace:
    """The pace of a stage, and when it will be done if that goes on.

    Args:
        session: what has been done.
        left: blocks that are not finished.
        upstream_left: seconds until the stages that it waits for are done; None if that cannot be told.
        time: now, in seconds since 1970.
    """
    if session.seconds <= 0 or session.blocks < 0:  # the clock was set back, or blocks were taken back
        return Pace(0.0, session.recent, None, None)
    average = session.blocks / session.seconds
    rate = average if session.recent is None else session.recent
    if rate <= 0 or upstream_left is None:
        return Pace(average, session.recent, None, None)
    seconds_left = max(left / rate, upstream_left)
    return Pace(average, session.recent, seconds_left, time + seconds_left)
