"""What every stage says about itself: what determines its output, what it needs, and where the output lies.

A stage is either a `BlockTask` (`stage.py`: many blocks, any number of workers) or a `DriverStep` (one computation on
the whole graph). Its `key` is a hash of everything that determines the output, keys of upstream stages included; the
output itself carries the key under which it was made, so an output is never taken for something else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ...config import config_hash
from ...run import Run
from ...volumes.locations import Location
from .grid import BlockGrid


@dataclass(frozen=True)
class Stage(ABC):
    """A step of the way from raw to segmentation; `run` is what it belongs to."""

    run: Run

    stage: ClassVar[str]
    """Name in summaries."""
    version: ClassVar[int]
    """Raised whenever a change of the code changes the output."""
    script: ClassVar[str]
    """The script that runs the stage, for messages."""
    is_redone: ClassVar[bool] = False
    """Whether a stale output is made again without being asked: it takes seconds, and says something of others."""
    together: ClassVar[str] = "segmentation"
    """Block tasks that follow each other run at the same time if they have the same word here."""

    @property
    def name(self) -> str:
        """Name of this very task in file names; no colons."""
        return self.stage

    @property
    @abstractmethod
    def output(self) -> str:
        """Where the output lies, for messages."""

    @cached_property
    def upstream(self) -> tuple[Stage, ...]:
        """The stages whose outputs it reads."""
        return ()

    @property
    def reads(self) -> tuple[Stage, ...]:
        """The stages whose blocks a block of it reads."""
        return self.upstream

    @property
    def array_place(self) -> Location:
        """The container or folder that an array of it lies in."""
        return self.run.arrays

    @property
    def array_bytes(self) -> int:
        """Bytes of its array before compression; 0 of other outputs, whose size the data decide."""
        return 0

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What determines the output besides the upstream stages, as JSON values under dotted names."""

    def check(self) -> None:  # noqa: B027  most stages need no more than their upstream stages
        """Make sure that the stage can run, before anything is deleted or written; not asked of one that is done.

        Raises:
            UserError: something that it needs is missing or does not fit.
        """

    @abstractmethod
    def stored_key(self) -> str | None:
        """The key under which the present output was begun; None if there is no output."""

    @abstractmethod
    def prepare(self) -> None:
        """Create the output, empty, and mark it with the key."""

    def lies_instead(self) -> str:
        """What a stale output is, if this stage never made it, and what to do; empty of an earlier one of its own."""
        return ""

    def is_intact(self) -> bool:
        """Whether what belongs to the output besides its blocks is there; quickly."""
        return True

    def is_missing(self) -> bool:
        """Whether there is certainly no output; quickly, and without asking a database."""
        return False

    def damage(self) -> str:
        """What is wrong with the output besides its blocks, for the audit; empty if nothing is."""
        return ""

    def remark(self) -> str:
        """What a user should know of the finished output, in one line; empty if nothing."""
        return ""

    def depends_on_whole_upstream(self) -> bool:
        """Whether something besides the blocks is made from all upstream blocks, and made again with them."""
        return False

    def discard_whole(self) -> None:  # noqa: B027  most outputs have nothing besides their blocks
        """Delete what `depends_on_whole_upstream` speaks of; the next run makes it again."""

    def resume(self) -> None:  # noqa: B027  most outputs can be continued as they are
        """Mend an output that was begun under the same key, so that its blocks can go on."""

    @abstractmethod
    def drop(self) -> None:
        """Delete the output."""

    @cached_property
    def folder(self) -> Path:
        """Where everything lies that is known of the output under its key: markers, records, failures."""
        return self.run.tracking / self.name / self.key

    @cached_property
    def chunk_grid(self) -> BlockGrid:
        """The segmented region in blocks of `predict.block_size`: the shards of its arrays."""
        return BlockGrid.of_run(self.run)

    @cached_property
    def grid(self) -> BlockGrid:
        """The segmented region in the blocks that the stage computes, each of one chunk or of several."""
        return self.chunk_grid

    @cached_property
    def key(self) -> str:
        """Hash of everything that determines the output."""
        return config_hash(self.name, self.version, self.settings(), [stage.key for stage in self.upstream])

    def take_key(self, key: str) -> None:
        """Use a known key: workers take the driver's, since what it was made from may change meanwhile."""
        self.__dict__["key"] = key


@dataclass(frozen=True)
class DriverStep(Stage):
    """A stage that is one computation in the driving process."""

    @abstractmethod
    def execute(self) -> None:
        """Compute and store everything; interrupted, it starts anew."""
