"""How large the segments are, told from the graph while a lookup table is made of it: for the report."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

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


def segment_sizes(nodes: NodeTable, lut: np.ndarray) -> SegmentSizes:
    """Number and sizes of segments.

    Args:
        nodes: all fragments, sorted by id.
        lut: (N, 2) uint64, fragment and segment; those with segment 0 do not count.
    """
    rows = np.searchsorted(nodes.id, lut[:, 0])
    rows, segment = rows[lut[:, 1] > 0], lut[lut[:, 1] > 0, 1]
    ids, index, fragments = np.unique(segment, return_inverse=True, return_counts=True)
    voxels = np.bincount(index, weights=nodes.size[rows], minlength=len(ids)).astype(np.int64)
    power = np.frexp(voxels.astype(np.float64))[1] - 1  # 2^power is the largest power of two within
    bins = int(power.max(initial=-1)) + 1
    chosen = np.lexsort((ids, -voxels))[:LARGEST]
    return {
        "segments": len(ids),
        "voxels": int(voxels.sum()),
        "counts": np.bincount(power, minlength=bins).tolist(),
        "volumes": np.bincount(power, weights=voxels, minlength=bins).astype(np.int64).tolist(),
        "largest": [_summary(nodes, rows[index == at], ids[at], voxels[at], fragments[at]) for at in chosen.tolist()],
    }


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


def _summary(nodes: NodeTable, rows: np.ndarray, segment: int, voxels: int, fragments: int) -> SegmentSummary:
    begin, end = nodes.begin[rows].min(axis=0).tolist(), nodes.end[rows].max(axis=0).tolist()
    return {
        "id": int(segment),
        "voxels": int(voxels),
        "fragments": int(fragments),
        "begin": (begin[0], begin[1], begin[2]),
        "end": (end[0], end[1], end[2]),
    }


def read_segment_sizes(run: Run, threshold: str) -> SegmentSizes | None:
    """How large the segments of a written segmentation are; None if that is not known.

    Args:
        run: the run.
        threshold: with two decimals, as the segmentation is called.

    Raises:
        DamagedFile: the file says something else.
    """
    return read_json_as(run.segment_sizes(threshold), SegmentSizes, MENDED)
