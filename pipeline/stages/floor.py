"""How well a run could score at best: perfect affinities, made from the labels, through its own stages 03 to 05.

What even they score is the floor. It is owed to the fragments, not to any network, and no network gets below it. So
whoever chooses settings of the fragments, or compares networks, looks at it first.

Perfect affinities do not say which settings bear the mistakes of a network. Once its affinities are there, they are
sent the same way beside the perfect ones, and it is they that choose.

Two kinds of contacts between neurites are tried. `flat`: the labels as they are; only the affinities across a contact
are 0. `cut`: touching neurites cut apart as for the targets of the training (`targets.erosion`, at least one voxel to
each side). A cut takes something from the labels themselves: processes that are no thicker than it. What is lost so
even if every voxel of the cut is given to the nearest of what is left, is the `loss` of the cut.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from statistics import mean
from typing import Any

import numpy as np
from funlib.geometry import Coordinate

from ..config import Config, FragmentsConfig, is_anisotropic
from ..distillation import affinity_targets, erode_boundaries
from ..engine.blocks.grid import BlockGrid
from ..engine.tracking.driver_lock import keeps_others_out
from ..engine.tracking.progress import Progress, progress_of
from ..evaluation import LabelRules, find_truth, loss_of, prepare_labels
from ..evaluation.overlaps import InMemory
from ..evaluation.runs import sweep_edges
from ..evaluation.sweep import Scores, best_of
from ..evaluation.truth import Truth
from ..rag import EdgeTable
from ..run import Run, update_summary, write_json
from ..segmentation import (
    FragmentClasses,
    SmallSegments,
    merge_scores,
    region_graph_statistics,
    waterz_edge_scores,
)
from ..units import THRESHOLD_DECIMALS, threshold_name
from ..volumes import Box, position_of
from .class_volume import open_class_volume
from .fragments import fragment_block
from .importing import ensure_imported
from .predict import PredictTask

logger = logging.getLogger(__name__)

BOUNDARY_THRESHOLDS = (0.5, 0.6, 0.7)
SEEDS = ({"seed_distance": 3, "seed_smoothing": 0.5}, {"seed_distance": 5, "seed_smoothing": 1.0})
BIASES = ((-0.2, -0.7), (-0.3, -0.5), (-0.5, -0.5))
NETWORK = "network"
"""The row of a network's affinities, beside those of perfect ones."""
CLEARLY = {False: 0.01, True: 0.1}
"""Settings have to be better by so much to be preferred to those of the config, by perfect affinities and by those of a
network, of which smaller differences are noise.
"""

Changes = dict[str, Any]
"""Keys of the section `fragments`, and the values that they are given."""


def describe_floor(run: Run) -> str:
    """What `measure_floor` would do, in words."""
    number, more = (len(list(settings_to_try(run.config, True, network))) for network in (False, True))
    return (
        f"would import the labels if they are not, and score perfect affinities with up to {number} settings;"
        f" with up to {more}, and the network's affinities beside them, where these are there"
    )


@keeps_others_out
def measure_floor(run: Run, sweep: bool = True) -> dict[str, Any]:
    """Score perfect affinities of the validation region, with the fragments of the config and with others like them.

    Labels are enough: no network and no earlier stage is needed. If the network's affinities are complete, they are
    scored as well. The region has to fit into memory, with about 30 bytes per voxel and one more for each of
    `predict.offsets`. Results are written to `floor.json`, the best to `summary.json` under `floor`.

    Args:
        run: the run.
        sweep: whether to try other settings than those of the config.

    Returns:
        `region`: its first voxel and the one past its last. `loss`: by kind of contact, the VOI that is lost with the
        labels themselves. `settings`: in the order tried, first those of the config: `fragments` (what differs from the
        config), and for each kind of contact, and for `network` where its affinities are there, `best` (scores and
        `threshold`) and `configured` (the same at each of `segment.thresholds`; empty where the config says `best`).
        `take`: what to change in `fragments`; empty if the config is as good as any.

    Raises:
        UserError: there are no labels where the volume is segmented.
    """
    ensure_imported(run, [run.config.volumes.segment.source])
    truth = find_truth(run)
    labels, classes = truth.read(truth.region), _classes(run, truth.region)
    voxel_size = truth.labels.voxel_size
    contacts = {"flat": labels, "cut": cut_apart(labels, run.config)}
    sections = is_anisotropic(voxel_size) and run.config.fragments.method == "watershed" and not truth.images
    given = network_affinities(run, truth)
    changes = settings_to_try(run.config, sections, given is not None) if sweep else [{}]
    tried: list[dict[str, Any]] = [{"fragments": changed} for changed in changes]
    kinds = []
    for kind, affinities in _affinities_of_kinds(contacts, given, run.config.predict.offsets):
        kinds.append(kind)
        for row in tried:
            settings = run.config.fragments.model_copy(update=row["fragments"])
            row[kind] = _floor(run.config, truth, affinities, settings, classes)
            score = row[kind]["best"]["voi_sum"]
            logger.info("%s, %s: VOI %.3f", in_words(kind), format_changes(row["fragments"]), score)
    results = {
        "region": {"begin": list(truth.region.begin), "end": list(truth.region.end)},
        "loss": {kind: _loss(truth, targets) for kind, targets in contacts.items()},
        "settings": tried,
        "take": setting_to_take(tried, kinds, run.config.fragments, sections),
    }
    write_json(run.directory / "floor.json", results)
    update_summary(run, floor=None)  # forget former ones
    update_summary(run, floor={"take": results["take"], **{kind: tried[0][kind]["best"] for kind in kinds}})
    return results


def _affinities_of_kinds(
    contacts: Mapping[str, np.ndarray], given: np.ndarray | None, offsets: Sequence[Sequence[int]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Affinities (k, z, y, x) uint8 by kind, made in their turn: perfect ones, then the network's if given."""
    for kind, targets in contacts.items():
        yield kind, perfect_affinities(targets, offsets)
    if given is not None:
        yield NETWORK, given


def network_affinities(run: Run, truth: Truth) -> np.ndarray | None:
    """What the run's network predicts in the region of the labels, (k, z, y, x) uint8; None where that is not computed
    to its end, or was dropped after use.
    """
    predict = PredictTask(run)
    if progress_of(predict) is not Progress.DONE or predict.drops.exists():
        return None
    predicted = predict.open_complete()
    first = truth.region.begin - truth.shift_of(predicted)
    return predicted.read(Box(first, first + truth.region.shape))


def perfect_affinities(labels: np.ndarray, offsets: Sequence[Sequence[int]]) -> np.ndarray:
    """What a network that makes no mistake would predict, (k, z, y, x) uint8 (255 = certain).

    Args:
        labels: (z, y, x) ids; 0 has no affinity to anything.
        offsets: one per channel in voxels. Voxels whose partner lies outside are held as the label inside goes on.
    """
    together, known = affinity_targets(labels, np.ones(labels.shape, bool), offsets)
    return np.where(known > 0, together, labels > 0).astype(np.uint8) * np.uint8(255)


def cut_apart(labels: np.ndarray, config: Config) -> np.ndarray:
    """Labels with touching neurites cut apart as for the targets of the training, by at least one voxel."""
    return erode_boundaries(labels, max(1, config.targets.erosion), in_plane=config.targets.erosion_in_plane)


def settings_to_try(config: Config, sections: bool, network: bool = False) -> Iterator[Changes]:
    """A small sweep around the fragments of the config, which come first.

    Args:
        config: the config.
        sections: whether to try fragments within sections too.
        network: a network's affinities are tried as well, so fragments across sections and by voxels alone are open.
    """
    given = config.fragments
    if given.method == "mutex_watershed":
        sweep: list[Changes] = [{"attraction_bias": short, "repulsion_bias": long} for short, long in BIASES]
    else:
        in_plane = {given.in_plane, *((True,) if sections else ()), *((False,) if sections and network else ())}
        faces = {given.face_threshold, *((0.0, 0.5) if network else ())}
        sweep = [
            {"boundary_threshold": boundary, **seeds, "in_plane": flat, "face_threshold": face}
            for flat, face, boundary, seeds in product(sorted(in_plane), sorted(faces), BOUNDARY_THRESHOLDS, SEEDS)
        ]
    yield {}
    for changes in sweep:
        changed = {name: value for name, value in changes.items() if getattr(given, name) != value}
        if changed:
            yield changed


def setting_to_take(
    tried: Sequence[Mapping[str, Any]], kinds: Sequence[str], fragments: FragmentsConfig, anisotropic: bool
) -> Changes:
    """What to change in `fragments`: the settings that are best for the network; without one, those with the lowest
    floor, mean over the kinds of contacts. Nothing if those of the config (the first ones) are as good.

    Without a network, of anisotropic voxels only fragments within sections are considered. Perfect affinities may speak
    for others, but those of most networks are unsure between such sections.
    """
    network = NETWORK in kinds
    deciding = [NETWORK] if network else kinds

    def loss(row: Mapping[str, Any]) -> float:
        return mean(loss_of(row[kind]["best"]) for kind in deciding)

    def eligible(row: Mapping[str, Any]) -> bool:
        return network or not anisotropic or row["fragments"].get("in_plane", fragments.in_plane)

    best = min(filter(eligible, tried), key=loss, default=tried[0])
    keep = eligible(tried[0]) and loss(tried[0]) <= loss(best) + CLEARLY[network]
    return {} if keep else dict(best["fragments"])


def in_words(kind: str) -> str:
    """What affinities are of a kind."""
    return "the network" if kind == NETWORK else f"{kind} contacts"


def format_changes(changes: Changes) -> str:
    """Settings in words."""
    return ", ".join(f"{name} {value}" for name, value in changes.items()) or "as configured"


def _classes(run: Run, region: Box) -> np.ndarray | None:
    """(z, y, x) uint64, the classes of the region's voxels that are never joined; None if there are none."""
    if run.config.agglomerate.never_join is None:
        return None
    with ExitStack() as stack:
        return open_class_volume(run, stack).read(region)


def _floor(
    config: Config, truth: Truth, affinities: np.ndarray, settings: FragmentsConfig, classes: np.ndarray | None
) -> dict[str, Any]:
    """Scores of affinities of the region, at the best threshold and at those of the config."""
    fragments = _fragments(config, truth, affinities, settings)
    never = config.agglomerate.never_join
    of_fragments = (
        None if never is None or classes is None else FragmentClasses.of_voxels(fragments, classes, never.alone)
    )
    edges = _scored_edges(config, affinities, fragments, of_fragments)
    ids, sizes = np.unique(fragments, return_counts=True)
    small = SmallSegments.of(config.small_segments, ids, sizes, edges.mean_affinity)
    wanted = () if config.segment.thresholds == "best" else config.segment.thresholds
    scores = sweep_edges(config, truth, _placed(fragments, truth), edges, wanted, small)
    best = best_of(scores)
    configured = {threshold_name(threshold): scores[round(threshold, THRESHOLD_DECIMALS)] for threshold in wanted}
    return {"best": {"threshold": best, **scores[best]}, "configured": configured}


def _fragments(config: Config, truth: Truth, affinities: np.ndarray, settings: FragmentsConfig) -> np.ndarray:
    """The fragments of the region, block by block as in stage 03, (z, y, x) uint64."""
    fragments = np.zeros(affinities.shape[1:], np.uint64)
    whole = Box.of_shape(fragments.shape)
    size = Coordinate(map(min, config.predict.write_block, fragments.shape))
    voxel_size = truth.labels.voxel_size
    grid = BlockGrid(whole, size, voxel_size, Coordinate(0, 0, 0))
    context = Coordinate(0 if config.volumes.images else settings.context[0], *settings.context[1:])
    for block in grid:
        around = grid.with_context(block.box, context, context)
        first_id, _ = grid.fragment_ids(block)
        seen = affinities[(slice(None), *around.slices)]
        inner = block.box.relative_to(around)
        found = fragment_block(seen, inner, first_id, voxel_size, settings, config.predict.offsets)
        fragments[block.box.slices] = found
    return fragments


def _scored_edges(
    config: Config, affinities: np.ndarray, fragments: np.ndarray, classes: FragmentClasses | None
) -> EdgeTable:
    """The graph of the whole region with merge scores, as stage 04 makes it; `waterz` without blocks."""
    nearest = affinities[: len(config.neighbours)]
    if config.agglomerate.method == "waterz":
        pairs, scores = waterz_edge_scores(nearest, fragments, config.agglomerate.merge_function, classes)
        return replace(EdgeTable.of(pairs, np.ones(len(pairs)), np.zeros(len(pairs))), score=scores)
    graph = region_graph_statistics(nearest, fragments, config.neighbours)
    edges = EdgeTable.of(graph.edges, graph.count, graph.affinity_sum)
    return replace(edges, score=merge_scores(graph.edges, graph.mean, graph.count, classes))


def _loss(truth: Truth, targets: np.ndarray) -> float:
    """The VOI left when the connected parts of labels are known, and all other voxels are given to the nearest part."""
    from ..segmentation.flooding import flood  # compiled

    parts = prepare_labels(targets, LabelRules(truth.rules.relabel))
    ids, seeds = np.unique(parts, return_inverse=True)
    seeds = seeds.reshape(targets.shape) + (ids[0] != 0)
    closed = np.zeros(targets.shape, np.uint8)
    anisotropic = is_anisotropic(truth.labels.voxel_size)
    nearest = flood(np.zeros(targets.shape, np.float32), seeds, closed, sections_first=anisotropic)
    scores: Scores = truth.score(_placed(nearest.astype(np.uint64), truth))
    return scores["voi_sum"]


def _placed(ids: np.ndarray, truth: Truth) -> InMemory:
    """Ids of the region of the labels."""
    labels = truth.labels
    return InMemory(ids, position_of(truth.region.begin, labels.voxel_size, labels.offset))
