"""Scores of a run: the threshold sweep on its graph, and every segmentation it has written."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from funlib.geometry import Coordinate

from ..command_names import name_of
from ..config import Config, EvaluateConfig
from ..engine.tracking.driver_lock import keeps_others_out
from ..errors import UserError
from ..rag import EdgeTable, open_rag
from ..run import SEGMENTATIONS, RankedBlocks, Run, region_box, update_summary
from ..segmentation import connected_components, relabel
from ..volumes import Box, Nanometres, Volume, open_volume
from ..volumes.aligned import Labels, Mask
from .certainty import rank_blocks, stored_certainty
from .contingency import Contingency
from .errors import rank_errors, write_errors
from .images import mean_image_scores, sections_of, sweep_images
from .overlaps import LabelRules, Readable, count_overlaps
from .seams import Overlap, find_seams
from .sweep import Scores, best_of, format_score, scores_of_table, sweep_thresholds

logger = logging.getLogger(__name__)

ERRORS = "errors.csv"
"""In the run directory."""
UNLABELLED_THRESHOLD = 0.5
"""The threshold of a run that has no labels to choose one on."""

NEURITE_VOXELS = 500
"""Pieces of neurites with fewer voxels say little about a segmentation."""


class Placed(Readable, Protocol):
    """Ids that say where they lie: a `Volume`, or an array in memory with a position."""

    @property
    def offset(self) -> Nanometres:
        """Position of the first voxel in nanometres."""


@dataclass(frozen=True)
class Truth:
    """The labels that a run is scored on.

    Attributes:
        labels: the labelled volume.
        mask: where it is to be used; None for everywhere.
        region: the voxels that count, in voxels of raw.
        rules: which labels count as objects.
        images: every section is an image of its own.
    """

    labels: Labels
    mask: Mask | None
    region: Box
    rules: LabelRules
    images: bool = False

    def read(self, box: Box) -> np.ndarray:
        """The labels of a box; 0 where they do not count."""
        labels = self.labels.read(box)
        if self.mask is not None:
            labels = np.where(self.mask.read(box) > 0, labels, np.uint64(0))
        return labels

    def count_against(self, segmentation: Placed) -> Contingency:
        """The contingency table of a segmentation that covers the region, its labelled voxels only."""
        return count_overlaps(segmentation, self, self.region, shift=self._shift(segmentation), rules=self.rules)

    def count_images_against(self, segmentation: Placed) -> Iterator[Contingency]:
        """The contingency table of each image, its background included."""
        shift, known = self._shift(segmentation), _Annotated(self)
        for section in sections_of(self.region):
            yield count_overlaps(
                segmentation, self, section, shift=shift, rules=self.rules, background=True, known=known
            )

    def seams_with(self, segmentation: Placed) -> Overlap:
        """What a segmentation that covers the region shares with the labels, and where the two touch."""
        return find_seams(
            segmentation,
            self,
            self.region,
            shift=self._shift(segmentation),
            rules=self.rules,
            spacing=self.labels.voxel_size,
        )

    def score(self, segmentation: Placed) -> Scores:
        """Scores of a segmentation that covers the region."""
        if self.images:
            return mean_image_scores(self.count_images_against(segmentation))
        return scores_of_table(self.count_against(segmentation))

    def _shift(self, segmentation: Placed) -> Coordinate:
        """Where a segmentation begins, in voxels of raw."""
        places = zip(segmentation.offset, self.labels.offset, self.labels.voxel_size, strict=True)
        return Coordinate(round((own - of_raw) / size) for own, of_raw, size in places)


@dataclass(frozen=True)
class _Annotated:
    """Where labels are known, background included."""

    truth: Truth

    def read(self, box: Box) -> np.ndarray:
        """Whether voxels count, (z, y, x) bool."""
        known = self.truth.labels.annotated(box)
        if self.truth.mask is not None:
            known &= self.truth.mask.read(box) > 0
        return known


@dataclass(frozen=True)
class Joined:
    """Fragments as segments at a threshold that need not have been written.

    Attributes:
        fragments: ids.
        lut: (N, 2) uint64 fragments and their segments, sorted; others stay as they are.
    """

    fragments: Placed
    lut: np.ndarray

    @property
    def offset(self) -> Nanometres:
        """Position of the first voxel in nanometres."""
        return self.fragments.offset

    def read(self, box: Box) -> np.ndarray:
        """The segments of a box."""
        ids = self.fragments.read(box)
        joined = relabel(ids, self.lut[:, 0], self.lut[:, 1])
        return np.where(joined == 0, ids, joined)


@keeps_others_out
def evaluate(run: Run) -> dict[str, Any]:
    """Score every threshold of the sweep, and every written segmentation, and note the results in `summary.json`; of a
    volume, list the errors at the best threshold in `errors.csv` beside it (see `errors`).

    Returns:
        `scores`: for each threshold (as text with two decimals) VOI and adapted Rand error; a written segmentation is
        scored as it was written. `best`: the one with the lowest VOI, with its `threshold`. Of separate images, every
        score is the mean over the images, those of objects on a background stand beside them (see `instance_scores`),
        and `best` has the highest panoptic quality. `certainty`: how well the array of this name ranks the blocks of a
        volume (see `RankedBlocks`); None without it.

    Raises:
        UserError: there are no labels where the volume was segmented, or an earlier stage has not run.
    """
    truth = find_truth(run)
    edges = scored_edges(run)
    fragments = open_volume(run.volume, "fragments")
    scores = sweep_edges(run.config, truth, fragments, edges)
    written = written_segmentations(run)
    for threshold, volume in written.items():
        scores[threshold] = truth.score(volume)
    best = best_of(scores)
    if not truth.images:
        limit = min(best, run.config.agglomerate.maximum_score)
        lut = connected_components(np.zeros(0, np.uint64), edges.pairs, edges.score, limit)
        _list_errors(run, truth, written.get(best, Joined(fragments, lut)))
    results = {
        "scores": {f"{threshold:.2f}": scores[threshold] for threshold in sorted(scores)},
        "best": {"threshold": best, **scores[best]},
        "certainty": None if truth.images else _rank_blocks(run, truth, fragments, edges),
    }
    update_summary(run, scores=None, best=None, certainty=None)  # forget thresholds of former sweeps
    update_summary(run, **results)
    return results


def _list_errors(run: Run, truth: Truth, segmentation: Placed) -> None:
    """Write `errors.csv`."""
    path = run.directory / ERRORS
    errors = rank_errors(truth.seams_with(segmentation))
    write_errors(path, errors, truth.labels.voxel_size, truth.labels.offset)
    logger.info("%d errors, the dearest first, are in %s", len(errors), path)


def _rank_blocks(run: Run, truth: Truth, fragments: Placed, edges: EdgeTable) -> RankedBlocks | None:
    """How well the run's certainty ranks its blocks."""
    certainty = stored_certainty(run)
    if certainty is None:
        return None
    limit = min(certainty.threshold, run.config.agglomerate.maximum_score)
    lut = connected_components(np.zeros(0, np.uint64), edges.pairs, edges.score, limit)
    return rank_blocks(run, certainty, Joined(fragments, lut), truth, truth.region, truth.rules)


def best_threshold(run: Run) -> float:
    """The threshold of the sweep with the best scores on the validation region, or 0.5 if the volume has no labels.

    Raises:
        UserError: the validation region lies outside the segmented one, or an earlier stage has not run.
    """
    if not run.has_labels(run.config.volumes.segment.source):
        return UNLABELLED_THRESHOLD
    scores = sweep_run(run, find_truth(run))
    best = best_of(scores)
    logger.info("threshold %.2f is the best on the validation region: %s", best, format_score(scores[best]))
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
    return sweep_edges(run.config, truth, open_volume(run.volume, "fragments"), scored_edges(run))


def scored_edges(run: Run) -> EdgeTable:
    """The whole graph of a run with merge scores, sorted by u.

    Raises:
        UserError: the merge scores are missing.
    """
    with open_rag(run.config.rag, run.directory) as store:
        edges = EdgeTable.concatenate(store.iterate_edges()).summed()
    if len(edges) and np.isnan(edges.score).all():
        raise UserError(f"the graph has no merge scores; run {name_of('04_agglomerate.py')} first", "agglomerate")
    return edges


def sweep_edges(
    config: Config, truth: Truth, fragments: Placed, edges: EdgeTable, thresholds: Iterable[float] = ()
) -> dict[float, Scores]:
    """Scores of fragments joined along scored edges.

    Args:
        config: has the thresholds of the sweep, and the largest score that joins.
        truth: what to score against.
        fragments: ids; they cover the region of `truth`.
        edges: the whole graph with merge scores, sorted by u.
        thresholds: more thresholds than those of the sweep.

    Raises:
        UserError: no labelled voxel counts.
    """
    thresholds = sorted({round(threshold, 2) for threshold in (*config.evaluate.sweep, *thresholds)})
    limit = config.agglomerate.maximum_score
    if truth.images:
        return sweep_images(_some_labelled(truth.count_images_against(fragments)), edges, thresholds, limit)
    (table,) = _some_labelled([truth.count_against(fragments)])
    return sweep_thresholds(table, edges.pairs, edges.score, thresholds, limit)


def _some_labelled(tables: Iterable[Contingency]) -> Iterator[Contingency]:
    """All tables; a `UserError` after the last one if none of them counts an object."""
    labelled = False
    for table in tables:
        labelled = labelled or bool(np.any(table.label > 0))
        yield table
    if not labelled:
        raise UserError(
            "nothing is labelled, so there is nothing to score on: every voxel is 0, targets.unlabelled_id, masked out,"
            " or of a label that is smaller than this",
            "evaluate.minimum_size",
        )


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
    rules = label_rules(config, volumes.images)
    return Truth(labels, run.open_mask(source), region, rules, volumes.images)


def label_rules(config: EvaluateConfig, images: bool) -> LabelRules:
    """The rules of the config, by default those that suit neurites in a volume, or all objects of separate images."""
    relabel = not images if config.relabel is None else config.relabel
    minimum_size = (0 if images else NEURITE_VOXELS) if config.minimum_size is None else config.minimum_size
    return LabelRules(relabel, minimum_size)


def written_segmentations(run: Run) -> dict[float, Volume]:
    """The segmentations of a run by threshold."""
    return {float(name): open_volume(run.volume, f"{SEGMENTATIONS}/{name}") for name in run.segmentation_names()}
