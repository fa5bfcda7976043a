"""Scores of a run: the threshold sweep on its graph, and every segmentation it has written."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..config import Config
from ..config.pretrained import pretrained_name, read_card
from ..engine.tracking.driver_lock import keeps_others_out
from ..engine.tracking.lineage import present_segmentations, require_graph_of_fragments
from ..errors import UserError
from ..rag import EdgeTable
from ..run import SEGMENTATIONS, RankedBlocks, Run, update_summary
from ..segmentation import SmallSegments, connected_components
from ..units import THRESHOLD_DECIMALS, counted, threshold_name
from ..volumes import RunVolume
from .certainty import rank_blocks, stored_certainty
from .contingency import Contingency
from .errors import rank_errors, write_errors
from .images import mean_image_scores, sweep_images
from .run_skeletons import Segmentations, score_skeletons_of_run
from .scored_graph import ScoredGraph
from .skeleton_scores import SkeletonOptions
from .sweep import Scores, best_of, format_score, scores_of_table, sweep_thresholds, with_share
from .truth import Joined, Placed, Truth, find_test, find_truth

logger = logging.getLogger(__name__)

ERRORS = "errors.csv"
"""In the run directory."""
UNLABELLED_THRESHOLD = 0.5
"""The threshold of a run that has no labels to choose one on."""


@keeps_others_out
def evaluate(run: Run, skeletons: SkeletonOptions | None = None) -> dict[str, Any]:
    """Score every threshold of the sweep, and every written segmentation, and note the results in `summary.json`; of a
    volume, list the errors at the best threshold in `errors.csv` beside it (see `errors`), and what was traced of each
    skeleton in `skeletons.csv`.

    Args:
        run: the run.
        skeletons: skeletons to measure run lengths on. A run without labels can be scored on them alone.

    Returns:
        `scores`: for each threshold (as text, such as `0.50`) VOI, adapted Rand error and CREMI score on the region
        that chooses the threshold; a written segmentation is scored as it was written. `best`: the one with the lowest
        VOI, with its `threshold`, scored on `volumes.test` if there is one. Of separate images, every score is the mean
        over the images, those of objects on a background stand beside them (see `instance_scores`), and `best` has the
        highest panoptic quality. `regions`: which one the threshold was `chosen_on`, and which one `best` is
        `reported_on`. `ignored`: how many voxels `evaluate.ignore` leaves out of that one, by label. `certainty`: how
        well the array of this name ranks the blocks of a volume (see `RankedBlocks`). `run_length`: see
        `score_skeletons_of_run`. What was not scored is None.

    Raises:
        UserError: there are no labels where the volume was segmented, an earlier stage has not run or is older than
            what it was made of, or skeletons or mask cannot be read or lie elsewhere.
    """
    require_graph_of_fragments(run)
    nodes = None if skeletons is None else skeletons.open()
    labelled = skeletons is None or run.has_labels(run.config.volumes.segment.source)
    truths = (find_truth(run), find_test(run)) if labelled else None
    results: dict[str, Any] = dict.fromkeys(("scores", "best", "regions", "ignored", "certainty", "run_length"))
    written, fragments = written_segmentations(run), run.open_computed("fragments")
    segmentations = (fragments, ScoredGraph(run), written)
    if truths is not None:
        results |= _score_labels(run, *truths, segmentations)
    if skeletons is not None and nodes is not None:
        best = results["best"]
        by_labels = None if best is None else (best["threshold"], results["regions"]["chosen_on"])
        results["run_length"] = score_skeletons_of_run(run, skeletons, nodes, segmentations, by_labels)
    update_summary(run, **dict.fromkeys(results))  # forget thresholds of former sweeps
    update_summary(run, **results)
    return results


def _score_labels(run: Run, truth: Truth, test: Truth | None, segmentations: Segmentations) -> dict[str, Any]:
    """What `evaluate` returns of labels.

    Args:
        run: the run.
        truth: chooses the threshold.
        test: what the best is reported on; None for `truth`.
        segmentations: of the run.
    """
    fragments, graph, written = segmentations
    edges, small = _edges_for([truth, *([] if test is None else [test])], graph, fragments), graph.small
    scores = sweep_edges(run.config, truth, fragments, edges, small=small)
    for threshold, volume in written.items():
        scores[threshold] = truth.score(volume)
    scores = {threshold: with_share(scores[threshold], truth.region.size) for threshold in sorted(scores)}
    best = best_of(scores)
    segmentation = written.get(best, Joined(fragments, _lut_at(run, edges, small, best)))
    reported = truth if test is None else test
    best_scores = scores[best] if test is None else with_share(_scores_on(test, segmentation), test.region.size)
    if not truth.images:
        _list_errors(run, reported, segmentation)
    return {
        "scores": {threshold_name(threshold): scores[threshold] for threshold in scores},
        "best": {"threshold": best, **best_scores},
        "regions": {"chosen_on": truth.name, "reported_on": reported.name},
        "ignored": _count_ignored(truth, test),
        "certainty": None if truth.images else _rank_blocks(run, reported, fragments, edges, small),
    }


def _count_ignored(truth: Truth, test: Truth | None) -> dict[str, int]:
    """How many voxels of the region that is reported on do not count, by label; warns of labels that no region has."""
    chosen_on = truth.count_ignored()
    reported = chosen_on if test is None else test.count_ignored()
    for label, voxels in chosen_on.items():
        if voxels == 0 and reported[label] == 0:
            logger.warning("evaluate.ignore: no voxel has the label %d; nothing was left out for it", label)
    return {str(label): voxels for label, voxels in reported.items()}


def _lut_at(run: Run, edges: EdgeTable, small: SmallSegments | None, threshold: float) -> np.ndarray:
    """(N, 2) uint64, the fragments that have edges, and their segments at a threshold."""
    limit = min(threshold, run.config.agglomerate.maximum_score)
    return connected_components(np.zeros(0, np.uint64), edges.pairs, edges.score, limit, small)


def _rank_blocks(
    run: Run, truth: Truth, fragments: Placed, edges: EdgeTable, small: SmallSegments | None
) -> RankedBlocks | None:
    """How well the run's certainty ranks its blocks."""
    certainty = stored_certainty(run)
    if certainty is None:
        return None
    lut = _lut_at(run, edges, small, certainty.threshold)
    return rank_blocks(run, certainty, Joined(fragments, lut), truth, truth.region, truth.rules)


def _scores_on(truth: Truth, segmentation: Placed) -> Scores:
    """Scores of one segmentation.

    Raises:
        UserError: no labelled voxel counts.
    """
    if truth.images:
        return mean_image_scores(_some_labelled(truth.count_images_against(segmentation), truth.name))
    (table,) = _some_labelled([truth.count_against(segmentation)], truth.name)
    return scores_of_table(table)


def _list_errors(run: Run, truth: Truth, segmentation: Placed) -> None:
    """Write `errors.csv`."""
    path = run.directory / ERRORS
    errors = rank_errors(truth.seams_with(segmentation))
    write_errors(path, errors, truth.labels.voxel_size, truth.labels.offset)
    logger.info("%d errors, the dearest first, are in %s", len(errors), path)


def best_threshold(run: Run) -> float:
    """The threshold of the sweep with the best scores on the validation region. If the volume has no labels, that of a
    ready-made student's card, or 0.5.

    Raises:
        UserError: the validation region lies outside the segmented one, or an earlier stage has not run.
    """
    if not run.has_labels(run.config.volumes.segment.source):
        return _threshold_without_labels(run)
    scores = sweep_run(run, find_truth(run))
    best = best_of(scores)
    logger.info(
        "threshold %s is the best on the validation region: %s", threshold_name(best), format_score(scores[best])
    )
    return best


def _threshold_without_labels(run: Run) -> float:
    name = pretrained_name(run.config.predict.checkpoint)
    threshold = UNLABELLED_THRESHOLD if name is None else read_card(name).threshold
    if run.config.volumes.validate_ is not None:
        logger.warning(
            "volumes.validate has no labels, so that no threshold can be chosen there: %s is taken%s",
            threshold_name(threshold),
            "" if name is None else f", that of {name}'s card",
        )
    return threshold


def check_run(run: Run, skeletons: SkeletonOptions | None = None) -> str:
    """What `evaluate` would score, in words.

    Raises:
        UserError: it would refuse.
    """
    require_graph_of_fragments(run)
    nodes = None if skeletons is None else skeletons.open()
    places = []
    if nodes is None or run.has_labels(run.config.volumes.segment.source):
        region, test = find_truth(run).region, find_test(run)
        places.append(f" on voxels {region.begin} to {region.end}")
        if test is not None:
            places.append(f", the best of them on volumes.test, voxels {test.region.begin} to {test.region.end}")
    if nodes is not None:
        places.append(f"{',' if places else ''} on {counted(len(nodes.names), 'skeleton')}")
    run.open_computed("fragments")
    written = ", ".join(threshold_name(threshold) for threshold in written_segmentations(run)) or "none"
    sweep = len(run.config.evaluate.sweep)
    return f"{counted(sweep, 'threshold')} and the written segmentations ({written}){''.join(places)}"


def sweep_run(run: Run, truth: Truth) -> dict[float, Scores]:
    """Scores of the run's graph at every threshold of the sweep.

    Raises:
        UserError: the fragments or the merge scores are missing, or not of each other.
    """
    require_graph_of_fragments(run)
    fragments = run.open_computed("fragments")
    graph = ScoredGraph(run)
    return sweep_edges(run.config, truth, fragments, _edges_for([truth], graph, fragments), small=graph.small)


def _edges_for(truths: Sequence[Truth], graph: ScoredGraph, fragments: Placed) -> EdgeTable:
    """The edges that join the fragments of some regions."""
    if any(truth.images for truth in truths):
        return graph.whole
    return graph.among(lambda: np.unique(np.concatenate([truth.ids_of(fragments) for truth in truths])))


def sweep_edges(
    config: Config,
    truth: Truth,
    fragments: Placed,
    edges: EdgeTable,
    thresholds: Iterable[float] = (),
    small: SmallSegments | None = None,
) -> dict[float, Scores]:
    """Scores of fragments joined along scored edges.

    Args:
        config: has the thresholds of the sweep, and the largest score that joins.
        truth: what to score against.
        fragments: ids; they cover the region of `truth`.
        edges: the whole graph with merge scores, sorted by u.
        thresholds: more thresholds than those of the sweep.
        small: what more joins small segments.

    Raises:
        UserError: no labelled voxel counts.
    """
    thresholds = sorted({round(threshold, THRESHOLD_DECIMALS) for threshold in (*config.evaluate.sweep, *thresholds)})
    limit = config.agglomerate.maximum_score
    if truth.images:
        return sweep_images(_some_labelled(truth.count_images_against(fragments)), edges, thresholds, limit, small)
    (table,) = _some_labelled([truth.count_against(fragments)])
    return sweep_thresholds(table, edges.pairs, edges.score, thresholds, limit, small=small)


def _some_labelled(tables: Iterable[Contingency], region: str = "") -> Iterator[Contingency]:
    """All tables; a `UserError`, which names the region, after the last one if none of them counts an object."""
    labelled = False
    for table in tables:
        labelled = labelled or bool(np.any(table.label > 0))
        yield table
    if not labelled:
        raise UserError(
            f"nothing {f'of {region} ' if region else ''}is labelled, so there is nothing to score on: every voxel is"
            " 0, targets.unlabelled_id, in evaluate.ignore, masked out, or of a label that is smaller than this",
            "evaluate.minimum_size",
        )


def written_segmentations(run: Run) -> dict[float, RunVolume]:
    """The segmentations of a run by threshold; warns of those that were made of a former graph, and leaves them out."""
    present = present_segmentations(run)
    for name in sorted(set(run.segmentation_names()) - set(present)):
        logger.warning("%s/%s is not scored: it was made of a former graph", SEGMENTATIONS, name)
    return {float(name): run.open_computed(f"{SEGMENTATIONS}/{name}") for name in present}
