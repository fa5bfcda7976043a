"""Scores of a run: the threshold sweep on its graph, and every segmentation it has written."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from ..rag import EdgeTable, open_rag
from ..run import Run, region_box, update_summary
from ..volumes import Box, Volume, open_volume, volume_exists
from .contingency import Contingency
from .overlaps import LabelRules, count_overlaps
from .sweep import Scores, best_of, scores_of_table, sweep_thresholds

logger = logging.getLogger(__name__)

UNLABELLED_THRESHOLD = 0.5
"""The threshold of a run that has no labels to choose one on."""


@dataclass(frozen=True)
class Truth:
    """The labels that a run is scored on.

    Attributes:
        labels: the labelled volume.
        mask: non-zero where it is to be used; None for everywhere.
        region: the voxels that count, in voxels of `labels`.
        unlabelled_id: a label that means "not annotated", besides 0.
        rules: which labels count as objects.
    """

    labels: Volume
    mask: Volume | None
    region: Box
    unlabelled_id: int | None
    rules: LabelRules

    def read(self, box: Box) -> np.ndarray:
        """The labels of a box; 0 where they do not count."""
        labels = self.labels.read(box)
        if self.unlabelled_id is not None:
            labels = np.where(labels == self.unlabelled_id, 0, labels)
        if self.mask is not None:
            labels = np.where(self.mask.read(box) > 0, labels, 0)
        return labels

    def against(self, segmentation: Volume) -> Contingency:
        """The contingency table of a segmentation that covers the region."""
        shift = (segmentation.offset - self.labels.offset) / self.labels.voxel_size
        return count_overlaps(segmentation, self, self.region, shift=shift, rules=self.rules)


def evaluate(run: Run) -> dict[str, Any]:
    """Score every threshold of the sweep, and every written segmentation, and note the results in `summary.json`.

    Returns:
        `scores`: for each threshold (as text with two decimals) VOI and adapted Rand error; a written segmentation is
        scored as it was written. `best`: the one with the lowest VOI, with its `threshold`.

    Raises:
        UserError: there are no labels where the volume was segmented, or an earlier stage has not run.
    """
    truth = find_truth(run)
    scores = sweep_run(run, truth)
    for threshold, volume in written_segmentations(run).items():
        scores[threshold] = scores_of_table(truth.against(volume))
    best = best_of(scores)
    results = {
        "scores": {f"{threshold:.2f}": scores[threshold] for threshold in sorted(scores)},
        "best": {"threshold": best, **scores[best]},
    }
    update_summary(run, scores=None, best=None)  # forget thresholds of former sweeps
    update_summary(run, **results)
    return results


def best_threshold(run: Run) -> float:
    """The threshold of the sweep with the lowest VOI on the validation region, or 0.5 if the volume has no labels.

    Raises:
        UserError: the validation region lies outside the segmented one, or an earlier stage has not run.
    """
    if not run.has_labels(run.config.volumes.segment.source):
        return UNLABELLED_THRESHOLD
    scores = sweep_run(run, find_truth(run))
    best = best_of(scores)
    logger.info("threshold %.2f has the lowest VOI on the validation region: %.3f bits", best, scores[best]["voi_sum"])
    return best


def check_run(run: Run) -> str:
    """What `evaluate` would score, in words.

    Raises:
        UserError: it would refuse.
    """
    region = find_truth(run).region
    open_volume(run.volume, "fragments")
    written = ", ".join(f"{threshold:.2f}" for threshold in written_segmentations(run)) or "none"
    sweep = len(run.config.evaluate.sweep)
    return f"{sweep} thresholds and the written segmentations ({written}) on voxels {region.begin} to {region.end}"


def sweep_run(run: Run, truth: Truth) -> dict[float, Scores]:
    """Scores of the run's graph at every threshold of the sweep.

    Raises:
        UserError: the fragments or the merge scores are missing.
    """
    table = truth.against(open_volume(run.volume, "fragments"))
    if table.total == 0:
        raise UserError("no labelled voxels to score on, once small labels are ignored", "evaluate.minimum_size")
    with open_rag(run.config.rag, run.directory) as store:
        edges = EdgeTable.concatenate(store.iterate_edges()).summed()
    if len(edges) and np.isnan(edges.score).all():
        raise UserError("the graph has no merge scores; run 04_agglomerate.py first", "agglomerate")
    thresholds = {round(threshold, 2) for threshold in run.config.evaluate.sweep}
    return sweep_thresholds(table, edges.pairs, edges.score, sorted(thresholds), run.config.agglomerate.maximum_score)


def find_truth(run: Run) -> Truth:
    """The labels to score on: the validation region if it is a part of the segmented volume, otherwise all labels.

    Raises:
        UserError: the segmented volume has no labels, or they lie outside the segmented region.
    """
    volumes, config = run.config.volumes, run.config.evaluate
    source = volumes.segment.source
    labels = run.open_labels(source)
    region = region_box(volumes.segment, labels.shape, "volumes.segment")
    validation = volumes.validate_
    if validation is not None and validation.source == source:
        region = region.intersect(region_box(validation, labels.shape, "volumes.validate"))
        if region.size == 0:
            raise UserError("lies outside volumes.segment, so nothing there was segmented", "volumes.validate")
    mask = open_volume(run.container(source), "mask") if volume_exists(run.container(source), "mask") else None
    rules = LabelRules(config.relabel, config.minimum_size)
    return Truth(labels, mask, region, run.config.targets.unlabelled_id, rules)


def written_segmentations(run: Run) -> dict[float, Volume]:
    """The segmentations of a run by threshold."""
    folder = run.volume / "segmentation"
    names = sorted(path.parent.name for path in folder.glob("*/.zarray"))
    return {float(name): open_volume(run.volume, f"segmentation/{name}") for name in names}
