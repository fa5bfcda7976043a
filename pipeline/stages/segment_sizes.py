"""How large the segments are, told from the graph while a lookup table is made of it: for the report."""

from __future__ import annotations

import numpy as np

from ..rag import NodeTable
from ..run import SegmentSizes, SegmentSummary

LARGEST = 20
"""Segments that are listed."""


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


def _summary(nodes: NodeTable, rows: np.ndarray, segment: int, voxels: int, fragments: int) -> SegmentSummary:
    begin, end = nodes.begin[rows].min(axis=0).tolist(), nodes.end[rows].max(axis=0).tolist()
    return {
        "id": int(segment),
        "voxels": int(voxels),
        "fragments": int(fragments),
        "begin": (begin[0], begin[1], begin[2]),
        "end": (end[0], end[1], end[2]),
    }
