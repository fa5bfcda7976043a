"""Run lengths of a run at every threshold: fragments are looked up once, and a lookup table joins them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from ..errors import UserError
from ..run import Run, region_box
from ..segmentation import connected_components
from ..units import threshold_name
from ..volumes import RunVolume
from ..volumes.volume import Volume
from .placed_ids import PlacedIds
from .scored_graph import ScoredGraph, swept
from .skeleton_scores import NodeSegments, SkeletonOptions, open_mask, summary_of, write_table
from .skeletons import RunLengths, Skeletons
from .truth import require_separate_test

TABLE = "skeletons.csv"
"""In the run directory."""
WHOLE = "volumes.segment"

Segmentations = tuple[RunVolume, ScoredGraph, Mapping[float, RunVolume]]
"""Fragments, the graph with merge scores, and the segmentations that were written, by threshold."""


def score_skeletons_of_run(
    run: Run,
    options: SkeletonOptions,
    skeletons: Skeletons,
    segmentations: Segmentations,
    by_labels: tuple[float, str] | None,
) -> dict[str, Any]:
    """Run lengths at every threshold of the sweep, and of every written segmentation; `skeletons.csv` gets a row per
    skeleton at the best threshold.

    If there is a `volumes.test`, the thresholds are compared on what of the skeletons lies in `volumes.validate`, and
    the best one is reported on what lies in `volumes.test`. Otherwise all skeletons count in both, and edges that leave
    the segmented region are omitted ones.

    Args:
        run: the run.
        options: merge threshold and mask.
        skeletons: with N nodes.
        segmentations: of the run.
        by_labels: the threshold that labels chose, and the region that they chose it on; None: the one with the highest
            expected run length is the best.

    Returns:
        `erl`, `max_erl`, `normalised_erl` and edges of each kind at the best `threshold` on the skeletons in
        `reported_on`; `merge_threshold` and `no_merge_mask`; `chosen_by` and `chosen_on`; `thresholds`: the same
        numbers at each, on the skeletons in `compared_on`; numbers of `nodes` and `nodes_outside` of the segmented
        region.

    Raises:
        UserError: nothing of the skeletons lies where it is to be scored, or the mask lies elsewhere.
    """
    fragments, graph, written = segmentations
    raw = run.open_raw(run.config.volumes.segment.source)
    volume = _placed(fragments, raw)
    outside = volume.require_nodes(skeletons)
    compared_on, reported_on = ("volumes.validate", "volumes.test") if run.config.volumes.test else (WHOLE, WHOLE)
    inside = {name: _nodes_in(run, name, raw, skeletons) for name in (compared_on, reported_on)}
    with ExitStack() as stack:
        mask = open_mask(options, stack)
        found = NodeSegments.of(volume, skeletons, options, mask)
        at = dict(_joined(run, found, graph))
        at |= {name: NodeSegments.of(_placed(ids, raw), skeletons, options, mask) for name, ids in written.items()}
    scores = {threshold: at[threshold].score(inside[compared_on]) for threshold in sorted(at)}
    if by_labels is None:
        _require_edges(next(iter(scores.values())), compared_on)
    longest = max(scores, key=lambda threshold: (scores[threshold].expected, -threshold))
    chosen, chosen_on = by_labels or (longest, compared_on)
    reported = at[chosen].score(inside[reported_on])
    _require_edges(reported, reported_on)
    write_table(run.directory / TABLE, reported, options)
    return {
        "threshold": chosen,
        **summary_of(reported, options),
        "reported_on": reported_on,
        "chosen_by": "erl" if by_labels is None else "labels",
        "chosen_on": chosen_on,
        "compared_on": compared_on,
        "thresholds": {threshold_name(threshold): lengths.totals() for threshold, lengths in scores.items()},
        "nodes": len(skeletons.owner),
        "nodes_outside": outside,
    }


def _joined(run: Run, found: NodeSegments, graph: ScoredGraph) -> Iterator[tuple[float, NodeSegments]]:
    """The nodes' segments at each threshold of the sweep."""
    ids, edges = found.all_ids(), graph.among(found.all_ids)
    for threshold in swept(run):
        limit = min(threshold, run.config.agglomerate.maximum_score)
        yield threshold, found.relabelled(connected_components(ids, edges.pairs, edges.score, limit, graph.small))


def _placed(volume: RunVolume, raw: Volume) -> PlacedIds:
    source = (raw.shape, raw.offset)
    return PlacedIds(volume, volume.name, volume.shape, volume.voxel_size, volume.offset, source=source)


def _nodes_in(run: Run, name: str, raw: Volume, skeletons: Skeletons) -> np.ndarray | None:
    """(N,) bool whether nodes lie in a held-out region; None if all count."""
    if name == WHOLE:
        return None
    volumes = run.config.volumes
    require_separate_test(run, raw.shape)
    box = region_box(volumes.held_out[name.removeprefix("volumes.")], raw.shape, name)
    box = box.intersect(region_box(volumes.segment, raw.shape, WHOLE))
    return skeletons.in_box(box, raw.voxel_size, raw.offset)


def _require_edges(lengths: RunLengths, region: str) -> None:
    if not lengths.length.sum() > 0:
        raise UserError("no edge of the skeletons lies in it, so there is nothing to measure run lengths on", region)
