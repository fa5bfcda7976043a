"""Agglomeration of one block by waterz, for its many ways of scoring an edge (the LSD recipe).

waterz merges the cheapest edge first and updates scores lazily, so its history of merges is only nearly in the order
of scores. Here a merge counts at the largest score that was reached up to then: with that, the segments at threshold t
are again the connected components of the edges with merge scores of at most t.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import waterz

from .affinities import NEAREST_NEIGHBOURS, as_unit_interval, check_matching
from .components import relabel
from .fragment_classes import ALONE, FragmentClasses
from .linkage import SCORE_DECIMALS

_MEAN = "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>"
_QUANTILE = "OneMinus<HistogramQuantileAffinity<RegionGraphType, {}, ScoreValue, 256>>"

MERGE_FUNCTIONS = {"mean": _MEAN} | {f"hist_quant_{q}": _QUANTILE.format(q) for q in (10, 25, 50, 75, 85, 90, 95)}
"""Ways to score an edge, by name: what waterz calls them. All of these come compiled."""

_BELOW_EVERY_SCORE, _ABOVE_EVERY_SCORE = -1.0, 2.0

_one_at_a_time = threading.Lock()
"""The standard output belongs to the whole process, so calls of waterz wait for each other."""


def agglomerate_waterz(
    affinities: np.ndarray,
    fragments: np.ndarray,
    thresholds: Iterable[float],
    merge_function: str = "mean",
    classes: FragmentClasses | None = None,
) -> dict[float, np.ndarray]:
    """Segmentations of a block by waterz.

    Args:
        affinities: (3, z, y, x), float in [0, 1] or uint8, to the nearest neighbours in z, y, x.
        fragments: (z, y, x), ids; 0 stays 0.
        thresholds: scores (1 - affinity) up to which fragments are merged.
        merge_function: a key of `MERGE_FUNCTIONS`.
        classes: of the fragments; those of different classes are never joined.

    Returns:
        For each threshold a segmentation (z, y, x) uint64; a segment carries the smallest id of its fragments.

    Raises:
        ValueError: the arrays do not belong together, or the merge function is unknown.
    """
    wanted = sorted(set(thresholds))
    if classes is not None:
        result = {threshold: fragments.astype(np.uint64) for threshold in wanted}  # `astype` copies
        for only in _class_by_class(fragments, classes):
            for threshold, part in agglomerate_waterz(affinities, only, wanted, merge_function).items():
                np.copyto(result[threshold], part, where=only > 0)
        return result
    ids, compact = _compact(fragments)
    options = _options(affinities, compact, merge_function)
    if compact.size == 0:
        return {threshold: fragments.astype(np.uint64) for threshold in wanted}
    with _standard_output_discarded():
        merged = [np.array(step) for step in waterz.agglomerate(thresholds=[_just_above(t) for t in wanted], **options)]
    return {threshold: _smallest_ids(compact, step, ids) for threshold, step in zip(wanted, merged, strict=True)}


def waterz_edge_scores(
    affinities: np.ndarray,
    fragments: np.ndarray,
    merge_function: str = "mean",
    classes: FragmentClasses | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The score at which waterz puts the two fragments of each edge into one segment.

    Args:
        affinities, fragments, merge_function: as for `agglomerate_waterz`.
        classes: of the fragments. Edges that they forbid are left out: waterz sees the fragments of one class at a
            time.

    Returns:
        edges (E, 2) uint64 with u < v, sorted; scores (E,) float64 in [0, 1].

    Raises:
        ValueError: the arrays do not belong together, or the merge function is unknown.
    """
    if classes is not None:
        return _scores_by_class(affinities, fragments, merge_function, classes)
    ids, compact = _compact(fragments)
    options = _options(affinities, compact, merge_function)
    graph, history = _merge_all(options) if compact.size else ([], [])
    if not graph:
        return np.zeros((0, 2), np.uint64), np.zeros(0)
    edges = np.array([(edge["u"], edge["v"]) for edge in graph], np.int64)
    edges.sort(axis=1)
    edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    scores = np.maximum.accumulate([merge["score"] for merge in history])
    joined = np.array([(merge["a"], merge["b"], merge["c"]) for merge in history], np.int64)
    return ids[edges], np.round(_join_scores(len(ids), joined, scores, edges), SCORE_DECIMALS)


def _scores_by_class(
    affinities: np.ndarray, fragments: np.ndarray, merge_function: str, classes: FragmentClasses
) -> tuple[np.ndarray, np.ndarray]:
    """`waterz_edge_scores` of the fragments of each class, as if there were no others."""
    edges, scores = [np.zeros((0, 2), np.uint64)], [np.zeros(0)]
    for only in _class_by_class(fragments, classes):
        found, found_scores = waterz_edge_scores(affinities, only, merge_function)
        edges.append(found)
        scores.append(found_scores)
    together = np.concatenate(edges)
    order = np.lexsort((together[:, 1], together[:, 0]))
    return together[order], np.concatenate(scores)[order]


def _class_by_class(fragments: np.ndarray, classes: FragmentClasses) -> Iterator[np.ndarray]:
    """The fragments (z, y, x) of each class that joins anything, uint64; the others are 0."""
    ids = np.unique(fragments).astype(np.uint64)
    of_id = classes.of_fragments(ids)
    for kind in np.unique(of_id[(ids != 0) & (of_id != ALONE)]):
        yield relabel(fragments, ids, np.where(of_id == kind, ids, np.uint64(0)))


def _options(affinities: np.ndarray, fragments: np.ndarray, merge_function: str) -> dict[str, Any]:
    """The arguments of waterz, checked; waterz writes into the fragments it gets."""
    check_matching(affinities, fragments, NEAREST_NEIGHBOURS)
    if merge_function not in MERGE_FUNCTIONS:
        raise ValueError(f"unknown merge function {merge_function!r}; known: {', '.join(MERGE_FUNCTIONS)}")
    return {
        "affs": np.ascontiguousarray(as_unit_interval(affinities)),
        "fragments": fragments.copy(),
        "scoring_function": MERGE_FUNCTIONS[merge_function],
    }


def _merge_all(options: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The region graph before any merge, and the history of merging everything.

    The graph is only asked for before the first merge: waterz 0.10 rescores stale edges when it hands out the graph,
    and then stops merging too early.
    """
    with _standard_output_discarded():
        steps = waterz.agglomerate(
            thresholds=[_BELOW_EVERY_SCORE, _ABOVE_EVERY_SCORE],
            return_merge_history=True,
            return_region_graph=True,
            **options,
        )
        _, _, graph = next(steps)
        _, history, _ = next(steps)
    return graph, history


@contextmanager
def _standard_output_discarded() -> Iterator[None]:
    """Drop what the process writes to standard output inside the block: waterz prints every step, from C++.

    File descriptor 1 points to the null device meanwhile. The buffers of Python and C are written out before
    and after, so that it goes where it belongs. Logging and progress bars use standard error and are not concerned.
    """
    c_library = ctypes.CDLL(None)

    def flush() -> None:
        sys.stdout.flush()
        c_library.fflush(None)

    with _one_at_a_time, open(os.devnull, "wb") as null_device:  # noqa: PTH123
        flush()
        kept = os.dup(1)
        os.dup2(null_device.fileno(), 1)
        try:
            yield
        finally:
            flush()
            os.dup2(kept, 1)
            os.close(kept)


def _just_above(threshold: float) -> float:
    """waterz merges scores below its threshold; ours merges scores up to it, whatever their last bits."""
    return threshold + 0.5 * 10.0**-SCORE_DECIMALS


def _compact(fragments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids (n + 1,) uint64 in ascending order, starting with 0, and the array of positions in them.

    waterz allocates as many nodes as the largest id says, and ids of blocks deep in a volume are large.
    """
    ids = np.unique(np.append(np.unique(fragments), 0)).astype(np.uint64)
    return ids, relabel(fragments.astype(np.uint64), ids, np.arange(len(ids), dtype=np.uint64))


def _smallest_ids(compact: np.ndarray, merged: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The segmentation in which every segment carries the smallest id of its fragments."""
    smallest = np.arange(len(ids))
    np.minimum.at(smallest, merged.ravel().astype(np.int64), compact.ravel().astype(np.int64))
    return ids[smallest[merged.astype(np.int64)]]


def _join_scores(size: int, merges: np.ndarray, scores: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Score of the merge that first puts u and v of each edge together: their lowest common ancestor."""
    import higra  # brings matplotlib along, which workers need not wait for

    count = len(merges)
    root = size + count
    parents = np.full(root + 1, root, np.int64)
    node_of = np.arange(size)  # the tree node that stands for a region now
    for step, (a, b, c) in enumerate(merges.tolist(), start=size):
        parents[node_of[a]] = parents[node_of[b]] = step
        node_of[c] = step
    altitudes = np.concatenate([np.zeros(size), scores, [np.inf]])
    ancestors = higra.Tree(parents).lowest_common_ancestor(edges[:, 0].copy(), edges[:, 1].copy())
    joined_at: np.ndarray = altitudes[ancestors]
    return joined_at
