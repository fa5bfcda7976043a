"""What every executor does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ...run import Run
from ..blocks.stage import BlockTask
from ..tracking.driver_record import DriverRecord
from .scheduling import Outcome


class Executor(ABC):
    """A place where blocks are computed."""

    @abstractmethod
    def run(self, run: Run, tasks: Sequence[BlockTask], record: DriverRecord) -> list[Outcome]:
        """Compute all blocks that are not marked as done.

        Args:
            run: whose config says how.
            tasks: upstream tasks first.
            record: what others are told of this driver.
        """
