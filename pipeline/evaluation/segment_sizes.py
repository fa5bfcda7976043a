"""How large the segments are, told from the graph while a lookup table is made of it: for the report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from ..disk_arrays import DiskArray, chunks
from ..rag import NodeTable
from ..run import MENDED, Run
from ..small_files import Count, read_json_as
from ..units import counted


class SegmentSummary(TypedDict):
    """A segment: its voxels and fragments, and its bounding box in voxels of the stored arrays, z, y, x."""

    id: Count
    voxels: Count
    fragments: Count
    begin: tuple[Count, Count, Count]
    end: tuple[Count, Count, Count]


class SegmentSizes(TypedDict):
    """How large the segments of a segmentation are.

    `segments`: how many there are. `voxels`: of all. `counts`, `volumes`: segments of 2^i to 2^(i+1) - 1 voxels, and
    the voxels of these, for i = 0, 1, … `largest`: some, the largest first.
    """

    segments: Count
    voxels: Count
    counts: Annotated[list[Count], Field(max_length=64)]
    volumes: Annotated[list[Count], Field(max_length=64)]
    largest: Annotated[list[SegmentSummary], Field(max_length=100)]


LARGEST = 20
"""Segments that are listed."""
NEARLY_ALL = 0.9
"""Share of the voxels: a segment with as much holds many objects, unless the volume is a single one."""


class SegmentSums:
    """Voxels and fragments of segments, summed on disk while the fragments go by.

    Args:
        folder: has room for 16 bytes per fragment.
        fragments: how many there are. A segment is called by the row of its first one.
    """

    def __init__(self, folder: Path, fragments: int) -> None:
        self._voxels, self._fragments = (DiskArray(folder, fragments, np.int64) for _ in range(2))

    def add(self, segment: np.ndarray, voxels: np.ndarray) -> None:
        """Count fragments (N,) of some segments with so many voxels."""
        np.add.at(self._voxels.values, segment, voxels)
        np.add.at(self._fragments.values, segment, 1)
        self.release()

    def drop_small(self, minimum_size: int) -> None:
        """Leave out segments with fewer voxels."""
        for part in chunks(len(self._voxels.values)):
            small = self._voxels.values[part] < minimum_size
            self._fragments.values[part][small] = 0
            self.release()

    def is_kept(self, segment: np.ndarray) -> np.ndarray:
        """(N,) bool, segments that were not left out."""
        return np.asarray(self._fragments.values[segment] > 0)

    def release(self) -> None:
        """Let go of the memory."""
        self._voxels.release()
        self._fragments.release()

    def summary(self, ids: np.ndarray, segment_of: np.ndarray, nodes: Iterator[NodeTable]) -> SegmentSizes:
        """Number and sizes of segments.

        Args:
            ids: (N,) of all fragments.
            segment_of: (N,) the segment of each.
            nodes: all fragments once more, in the order of their ids.
        """
        counts, volumes = np.zeros(64, np.int64), np.zeros(64, np.int64)
        largest = np.zeros(0, np.int64)
        for part in chunks(len(ids)):
            there = part.start + np.flatnonzero(self._fragments.values[part] > 0)
            voxels = self._voxels.values[there]
            power = np.frexp(voxels.astype(np.float64))[1] - 1  # 2^power is the largest power of two within
            np.add.at(counts, power, 1)
            np.add.at(volumes, power, voxels)
            candidates = np.concatenate([largest, there])
            largest = candidates[np.lexsort((candidates, -self._voxels.values[candidates]))[:LARGEST]]
            self.release()
        bins = int(np.flatnonzero(counts).max(initial=-1)) + 1
        boxes = _boxes(largest, segment_of, nodes)
        return {
            "segments": int(counts.sum()),
            "voxels": int(volumes.sum()),
            "counts": counts[:bins].tolist(),
            "volumes": volumes[:bins].tolist(),
            "largest": [
                self._summary(ids, row, box) for row, box in zip(largest.tolist(), boxes.tolist(), strict=True)
            ],
        }

    def _summary(self, ids: np.ndarray, row: int, box: list[list[int]]) -> SegmentSummary:
        (z, y, x), (z_end, y_end, x_end) = box
        return {
            "id": int(ids[row]),
            "voxels": int(self._voxels.values[row]),
            "fragments": int(self._fragments.values[row]),
            "begin": (z, y, x),
            "end": (z_end, y_end, x_end),
        }


def _boxes(segments: np.ndarray, segment_of: np.ndarray, nodes: Iterator[NodeTable]) -> np.ndarray:
    """(S, 2, 3) int64, begin and end of the bounding boxes of a few segments."""
    boxes = np.empty((len(segments), 2, 3), np.int64)
    boxes[:, 0], boxes[:, 1] = np.iinfo(np.int64).max, 0
    order = np.argsort(segments)
    end = 0
    for table in nodes:
        segment = segment_of[end : end + len(table)]
        end += len(table)
        rows = np.flatnonzero(np.isin(segment, segments))
        which = order[np.searchsorted(segments[order], segment[rows])]
        np.minimum.at(boxes[:, 0], which, table.begin[rows])
        np.maximum.at(boxes[:, 1], which, table.end[rows])
    return boxes


def of_little_use(sizes: SegmentSizes) -> str:
    """What is wrong with a segmentation that tells hardly anything apart, and what to change, in one line; empty if
    nothing is.
    """
    train = "train longer, or on volumes like this one"
    if sizes["segments"] == 0:
        return (
            "there is no segment: lower segment.minimum_size, fragments.minimum_affinity or"
            f" fragments.background_threshold, or {train}"
        )
    largest = sizes["largest"][0]
    share = largest["voxels"] / max(1, sizes["voxels"])
    if share < NEARLY_ALL:
        return ""
    told = f"{100 * share:.3g} % of the segmented voxels lie in one of {counted(sizes['segments'], 'segment')}"
    if largest["fragments"] == 1:
        return f"{told}, which is a single fragment: raise fragments.boundary_threshold, or {train}"
    return f"{told}: if there are more objects, lower segment.thresholds, which merges less, or {train}"


def read_segment_sizes(run: Run, threshold: str) -> SegmentSizes | None:
    """How large the segments of a written segmentation are; None if that is not known.

    Args:
        run: the run.
        threshold: as the segmentation is called.

    Raises:
        DamagedFile: the file says something else.
    """
    return read_json_as(run.segment_sizes(threshold), SegmentSizes, MENDED)
