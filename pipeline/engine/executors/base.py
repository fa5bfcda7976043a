"""What every executor does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ...run import Run
from ..blocks.stage import BlockTask
from ..tracking.driver_record import DriverRecord
from .portions import Held
from .scheduling import Outcome


class Executor(ABC):
    """A place where blocks are computed."""

    def check(self, run: Run, tasks: Sequence[BlockTask]) -> None:  # noqa: B027  most have nothing to ask
        """Make sure that the workers of tasks can be started from here, before anything is written.

        Raises:
            UserError: they cannot.
        """

    @abstractmethod
    def run(self, run: Run, tasks: Sequence[BlockTask], record: DriverRecord, held: Held) -> list[Outcome]:
        """Compute all blocks that are not marked as done and may be computed by now.

        Args:
            run: whose config says how.
            tasks: upstream tasks first.
            record: what others are told of this driver.
            held: blocks that wait for a later call.
        """
