"""Linkage by regions (`linkage.py`), downwards: the scores of what came to each region, handed to its parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from typing_extensions import override

from ..engine.blocks.grid import Block
from ..engine.blocks.stage import BlockFunction, BlockTask, Stage
from ..errors import UserError
from ..run import Run
from .linkage import LinkageTask, RegionTask, levels_of
from .region_files import read_region, write_parts


@dataclass(frozen=True)
class MergeScoresTask(RegionTask):
    """A level downwards: the scores of what came to each region, handed to its parts."""

    stage = "merge_scores"

    @cached_property
    def linkage(self) -> LinkageTask:
        """The same level upwards."""
        return LinkageTask(self.run, self.level)

    @property
    def above(self) -> LinkageTask | MergeScoresTask:
        """The level that hands scores to this one."""
        last = self.level + 1 == levels_of(self.run, self.chunk_grid) - 1
        return LinkageTask(self.run, self.level + 1) if last else replace(self, level=self.level + 1)

    @property
    def scores(self) -> Path:
        """Where the scores of its parts are."""
        return self.files

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return (self.above, self.linkage)

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        above = self.above

        def process_region(region: Block) -> None:
            table = self.linkage.read(region.index)
            scores = read_scores(above, region.index, len(table.linked.edges))
            checksum = write_parts(self.scores, table.parts, lambda rows: table.linked.scores(scores, rows))
            self.records.write(region.index, checksum, len(table.linked.target))

        yield process_region

    @override
    def is_lost(self, index: int) -> bool:
        try:
            for part, rows in self.linkage.read(index).parts.tolist():
                read_scores(self, part, rows)
        except UserError:
            return True
        return False


def read_scores(above: LinkageTask | MergeScoresTask, index: int, rows: int) -> np.ndarray:
    """(E,) float64, the scores that a level has handed to one of its parts.

    Raises:
        UserError: they are lost or damaged.
    """
    scores = read_region(above.scores, index, above.cure).view(np.float64)
    if len(scores) != rows:
        raise UserError(f"has {len(scores)} scores for {rows} edges; {above.cure}", str(above.scores))
    return scores


def linkage_stages(run: Run, levels: int) -> list[BlockTask]:
    """The stages of a tree of so many levels, upstream ones first."""
    up: list[BlockTask] = [LinkageTask(run, level) for level in range(levels)]
    return [*up, *(MergeScoresTask(run, level) for level in reversed(range(levels - 1)))]
