"""The segments at any threshold, without a volume: which fragments each has, how large it is, and where it lies.

Two files of the run: `luts/view_<threshold>.npy`, from fragments to segments as of `05_segment.py`, and
`luts/segments_<threshold>.npy`, a row per segment.
"""

from __future__ import annotations

import bisect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from ...command_names import SCRIPTS
from ...disk_arrays import DiskArray, chunks
from ...engine.blocks.checksums import mapped_checksum
from ...engine.blocks.grid import Block, BlockGrid
from ...engine.blocks.stage import DriverStep, Stage
from ...engine.tracking.progress import recorded_key
from ...errors import UserError
from ...evaluation.segment_sizes import SegmentSums
from ...rag import NodeTable, RagStore
from ...run import Run
from ...segmentation import relabel
from ...small_files import read_json, read_npy, write_json, write_npy_rows
from ...volumes import Box, crop
from ..agglomerate import agglomeration
from ..fragments import FragmentsTask
from ..lookup_tables import JoinedFragments, JoinLimits, join_fragments, sum_segments, write_lookup_table
from ..region_graph import RagTask, open_graph
from ..segment import lut_slice, small_settings

SEGMENT: np.dtype = np.dtype(
    [("id", "<u8"), ("size", "<i8"), ("fragments", "<i8"), ("centre", "<f8", 3), ("begin", "<i8", 3), ("end", "<i8", 3)]
)
"""A segment: voxels, number of fragments, centre of mass in nanometres, and box in voxels of the region; z, y, x."""
CHECKSUMS = "checksums.json"
"""Of both files, in the folder of what is known of the stage."""


def write_segment_table(store: RagStore, joined: JoinedFragments, sums: SegmentSums, path: Path) -> None:
    """Write the segments of a graph, (M,) `SEGMENT`, sorted by id, in one step.

    Args:
        store: the graph store that the fragments are from.
        joined: all fragments.
        sums: of their segments; those that were dropped are none.
        path: the file.

    Raises:
        UserError: the folder cannot be written.
    """
    first, segments = joined.first.values, 0
    row = DiskArray(path.parent, len(joined), np.int64)  # of each segment in the table
    for part in chunks(len(joined)):
        begins = sums.is_kept(np.arange(part.start, part.stop))
        row.values[part] = segments + np.cumsum(begins) - 1
        segments += int(begins.sum())
        _release(joined, sums, row)
    table = DiskArray(path.parent, segments, SEGMENT)
    for part in chunks(len(joined)):
        begins = part.start + np.flatnonzero(sums.is_kept(np.arange(part.start, part.stop)))
        found = table.values[row.values[begins]]
        found["id"], found["begin"] = joined.ids.values[begins], np.iinfo(np.int64).max
        table.values[row.values[begins]] = found
        _release(joined, sums, row, table)
    end = 0
    for nodes in store.iterate_nodes():
        of_node = first[end : end + len(nodes)]
        end += len(nodes)
        kept = sums.is_kept(of_node)
        _add_fragments(table.values, row.values[of_node[kept]], nodes.select(kept))
        _release(joined, sums, row, table)

    def rows() -> Iterator[np.ndarray]:
        for part in chunks(segments):
            found = table.values[part].copy()
            found["centre"] /= found["size"][:, None]
            yield found
            table.release()

    write_npy_rows(path, (segments,), SEGMENT, rows())


def _release(*arrays: JoinedFragments | SegmentSums | DiskArray) -> None:
    for array in arrays:
        array.release()


def _add_fragments(table: np.ndarray, row: np.ndarray, nodes: NodeTable) -> None:
    """Add fragments to the rows (N,) of their segments; `centre` is the sum over voxels."""
    np.add.at(table["size"], row, nodes.size)
    np.add.at(table["fragments"], row, 1)
    np.add.at(table["centre"], row, nodes.centre * nodes.size[:, None])
    np.minimum.at(table["begin"], row, nodes.begin)
    np.maximum.at(table["end"], row, nodes.end)


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
        largest = min(self.threshold, config.agglomerate.maximum_score)
        limits, folder = JoinLimits(largest, config.small_segments), self.lut_path.parent
        with open_graph(self.run) as store:
            joined = join_fragments(store, RagTask(self.run), agglomeration(self.run), limits, folder)
            sums = sum_segments(joined, config.segment.minimum_size, folder)
            write_lookup_table(joined, sums, self.lut_path)
            write_segment_table(store, joined, sums, self.table_path)
        checksums = {path.name: mapped_checksum(read_npy(path)) for path in (self.lut_path, self.table_path)}
        write_json(self.folder / CHECKSUMS, checksums)

    @override
    def damage(self) -> str:
        try:
            checksums = read_json(self.folder / CHECKSUMS)
            for path in (self.lut_path, self.table_path):
                if mapped_checksum(read_npy(path)) != checksums.get(path.name):
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
    def renamed(self, fragments: np.ndarray, block: Block) -> np.ndarray:
        """What fragments (z, y, x) of a block become, uint64; 0 stays 0."""

    def read(self, box: Box) -> np.ndarray:
        """(z, y, x) uint64 of a box of the region.

        Raises:
            UserError: a shard of the fragments is gone or damaged.
        """
        fragments = self._fragments.read(box)
        result = np.zeros(fragments.shape, np.uint64)
        for block in self.grid.blocks_in(box):
            part = block.box.intersect(box).relative_to(box)
            crop(result, part)[:] = self.renamed(crop(fragments, part), block)
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
        self._table = step.read() if minimum_size > 0 else None
        self._minimum_size = minimum_size

    @override
    def renamed(self, fragments: np.ndarray, block: Block) -> np.ndarray:
        rows = lut_slice(self._lut, *self.grid.fragment_ids(block))
        if self._table is not None:
            segments, row = np.unique(rows[rows[:, 1] > 0, 1], return_inverse=True)  # fewer than the table has, so that
            sizes = self._table["size"][np.searchsorted(self._table["id"], segments)]  # it is looked into, not copied
            rows[np.flatnonzero(rows[:, 1])[sizes[row] < self._minimum_size], 1] = 0
        return relabel(fragments, rows[:, 0], rows[:, 1])


class NumberedFragments(RelabelledFragments):
    """Fragments numbered 1, 2, … without gaps, in the order of their ids.

    Args:
        step: has made the table of all fragments.
    """

    def __init__(self, step: SegmentsStep) -> None:
        super().__init__(step.run)
        self._lut = read_npy(step.lut_path)

    @override
    def renamed(self, fragments: np.ndarray, block: Block) -> np.ndarray:
        first, end = self.grid.fragment_ids(block)
        ids = self._lut[:, 0]
        begin, stop = bisect.bisect_left(ids, first), bisect.bisect_left(ids, end)
        return relabel(fragments, np.array(ids[begin:stop]), np.arange(begin + 1, stop + 1, dtype=np.uint64))


def segments_of(run: Run, threshold: float) -> SegmentsStep:
    """The stage that makes the segments at a threshold, which counts to six decimals."""
    return SegmentsStep(run, round(threshold, 6))
