"""The segments at any threshold, without a volume: which fragments each has, how large it is, and where it lies.

Two files of the run: `luts/view_<threshold>.npy`, from fragments to segments as of `05_segment.py`, and
`luts/segments_<threshold>.npy`, a row per segment.
"""

from __future__ import annotations

import bisect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from ...command_names import SCRIPTS
from ...engine.blocks.checksums import array_checksum
from ...engine.blocks.grid import BlockGrid
from ...engine.blocks.stage import DriverStep, Stage
from ...errors import UserError
from ...rag import NodeTable
from ...run import Run
from ...segmentation import relabel
from ...small_files import read_json, read_npy, write_json, write_npy
from ...volumes import Box, crop
from ..agglomerate import agglomeration
from ..fragments import FragmentsTask
from ..graph_rows import read_graph
from ..region_graph import RagTask, open_graph
from ..segment import lookup_table, lut_slice, small_settings
from .written import recorded_key

SEGMENT: np.dtype = np.dtype(
    [("id", "<u8"), ("size", "<i8"), ("fragments", "<i8"), ("centre", "<f8", 3), ("begin", "<i8", 3), ("end", "<i8", 3)]
)
"""A segment: voxels, number of fragments, centre of mass in nanometres, and box in voxels of the region; z, y, x."""
CHECKSUMS = "checksums.json"
"""Of both files, in the folder of what is known of the stage."""


def segment_table(nodes: NodeTable, lut: np.ndarray) -> np.ndarray:
    """The segments that a lookup table makes of fragments.

    Args:
        nodes: all fragments, sorted by id.
        lut: (N, 2) uint64, fragment and segment; segment 0 is none.

    Returns:
        (M,) `SEGMENT`, sorted by id.
    """
    segment_of = lut[np.searchsorted(lut[:, 0], nodes.id), 1]
    order = np.argsort(segment_of, kind="stable")
    order = order[segment_of[order] != 0]
    ids, first = np.unique(segment_of[order], return_index=True)
    table = np.zeros(len(ids), SEGMENT)
    if not len(ids):
        return table
    size = nodes.size[order]
    table["id"] = ids
    table["size"] = np.add.reduceat(size, first)
    table["fragments"] = np.diff([*first, len(order)])
    weighted = np.add.reduceat(nodes.centre[order] * size[:, None], first, axis=0)
    table["centre"] = weighted / table["size"][:, None]
    table["begin"] = np.minimum.reduceat(nodes.begin[order], first, axis=0)
    table["end"] = np.maximum.reduceat(nodes.end[order], first, axis=0)
    return table


@dataclass(frozen=True)
class SegmentsStep(DriverStep):
    """The segments at a threshold, from the graph.

    Attributes:
        threshold: edges up to this score are merged.
    """

    threshold: float

    stage = "segments"
    version = 1
    script = SCRIPTS["export"]

    @property
    @override
    def name(self) -> str:
        return f"segments_{self.threshold:g}"

    @property
    def lut_path(self) -> Path:
        """The table from fragments to segments."""
        return self.run.luts / f"view_{self.threshold:g}.npy"

    @property
    def table_path(self) -> Path:
        """The table of segments."""
        return self.run.luts / f"segments_{self.threshold:g}.npy"

    @property
    @override
    def output(self) -> str:
        return str(self.table_path)

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return (agglomeration(self.run),)

    @override
    def settings(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "segment.minimum_size": self.run.config.segment.minimum_size,
            "agglomerate.maximum_score": self.run.config.agglomerate.maximum_score,
            **small_settings(self.run),
        }

    @override
    def stored_key(self) -> str | None:
        return recorded_key(self) if self.is_intact() else None

    @override
    def is_intact(self) -> bool:
        return self.lut_path.exists() and self.table_path.exists()

    @override
    def prepare(self) -> None:
        self.drop()

    @override
    def drop(self) -> None:
        self.table_path.unlink(missing_ok=True)
        self.lut_path.unlink(missing_ok=True)

    @override
    def execute(self) -> None:
        config = self.run.config
        with open_graph(self.run) as store:
            nodes, edges = read_graph(store, RagTask(self.run), agglomeration(self.run))
        maximum, minimum = config.agglomerate.maximum_score, config.segment.minimum_size
        lut = lookup_table(nodes, edges, self.threshold, maximum, minimum, config.small_segments)
        checksums = {}
        for path, table in ((self.lut_path, lut), (self.table_path, segment_table(nodes, lut))):
            write_npy(path, table)
            checksums[path.name] = array_checksum(table)
        write_json(self.folder / CHECKSUMS, checksums)

    @override
    def damage(self) -> str:
        try:
            checksums = read_json(self.folder / CHECKSUMS)
            for path in (self.lut_path, self.table_path):
                if array_checksum(read_npy(path)) != checksums.get(path.name):
                    return f"{path.name} is damaged"
        except (FileNotFoundError, UserError):
            return "a file of it is missing or damaged"
        return ""

    def read(self) -> np.ndarray:
        """(M,) `SEGMENT`, as a view of the file."""
        return read_npy(self.table_path)


class RelabelledFragments(ABC):
    """Fragments with other ids, block by block: no volume is written.

    Args:
        run: whose fragments.
    """

    def __init__(self, run: Run) -> None:
        self._fragments = FragmentsTask(run).open_complete()
        self.grid = BlockGrid.of_run(run)

    @abstractmethod
    def rows_of(self, block: int) -> np.ndarray:
        """(N, 2) uint64, the fragments of a block, sorted, and what they become."""

    def read(self, box: Box) -> np.ndarray:
        """(z, y, x) uint64 of a box of the region.

        Raises:
            UserError: a shard of the fragments is gone or damaged.
        """
        fragments = self._fragments.read(box)
        result = np.zeros(fragments.shape, np.uint64)
        for block in self.grid.blocks_in(box):
            part = block.box.intersect(box).relative_to(box)
            rows = self.rows_of(block.index)
            crop(result, part)[:] = relabel(crop(fragments, part), rows[:, 0], rows[:, 1])
        return result


class SegmentedVolume(RelabelledFragments):
    """Fragments as the segments at a threshold, read through the lookup table.

    Args:
        step: has made the table.
        minimum_size: segments with fewer voxels read as 0.
    """

    def __init__(self, step: SegmentsStep, minimum_size: int = 0) -> None:
        super().__init__(step.run)
        self._lut = read_npy(step.lut_path)
        table = step.read() if minimum_size > 0 else np.zeros(0, SEGMENT)
        self._small = np.array(table["id"][table["size"] < minimum_size])

    @override
    def rows_of(self, block: int) -> np.ndarray:
        rows = lut_slice(self._lut, *self.grid.fragment_ids(self.grid.block(block)))
        rows[np.isin(rows[:, 1], self._small), 1] = 0
        return rows


class NumberedFragments(RelabelledFragments):
    """Fragments numbered 1, 2, … without gaps, in the order of their ids.

    Args:
        step: has made the table of all fragments.
    """

    def __init__(self, step: SegmentsStep) -> None:
        super().__init__(step.run)
        self._lut = read_npy(step.lut_path)

    @override
    def rows_of(self, block: int) -> np.ndarray:
        first, end = self.grid.fragment_ids(self.grid.block(block))
        ids = self._lut[:, 0]
        begin, stop = bisect.bisect_left(ids, first), bisect.bisect_left(ids, end)
        return np.stack([np.array(ids[begin:stop]), np.arange(begin + 1, stop + 1, dtype=np.uint64)], axis=1)


def segments_of(run: Run, threshold: float) -> SegmentsStep:
    """The stage that makes the segments at a threshold, which counts to six decimals."""
    return SegmentsStep(run, round(threshold, 6))
