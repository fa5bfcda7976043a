"""How good a network is on a held-out region: the supervised loss, and the scores of a segmentation made from it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from funlib.geometry import Coordinate

from ...config import Config, Offset, TargetsConfig, taught_offsets
from ...distillation import (
    EmbeddedPatch,
    SupervisedAffinityLoss,
    affinity_targets,
    cosine_to_affinity,
    erode_boundaries,
    padded_affinities,
)
from ...errors import UserError
from ...label_ids import has_any, without_labels
from ...networks import EmbeddingNetwork
from ...volumes import Box
from ..sampling.nodes import erosion_margin
from ..sampling.regions import ChunkCache, LabelledRegion
from .embedding import embed, needed_input, patch_of, spatial

THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(1, 10))
"""Merge thresholds of which the best is reported; of images also 0, the fragments as they are."""
IMAGE_SCORES = ("panoptic_quality", "f1", "aggregated_jaccard", "dice")


logger = logging.getLogger(__name__)


class ValidationStopped(Exception):
    """The validation was interrupted on request."""


def validate(
    network: EmbeddingNetwork,
    region: LabelledRegion,
    config: Config,
    *,
    shape: Coordinate,
    tile: Coordinate,
    autocast: torch.dtype | None,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Score a network on the middle of a region.

    Args:
        network: on its device; left in training mode.
        region: labelled, never trained on.
        config: targets and fragments.
        shape: largest extent of the part that is looked at, in voxels.
        tile: voxels embedded at once.
        autocast: reduced precision, or None.
        stopped: asked before each tile.

    Returns:
        `loss` (supervised), and at the best `threshold` of a volume `voi_split`, `voi_merge`, `voi_sum` in bits, of
        separate images `panoptic_quality`, `f1`, `aggregated_jaccard`, `dice`, means over the images.

    Raises:
        ValidationStopped: `stopped` said so.
    """
    from ...segmentation import make_fragments  # here and below: not needed by the loader's workers

    box = _middle(region.box, shape)
    network.eval()
    try:
        with torch.no_grad():
            embedding = embed_box(network, region, box, tile, autocast, stopped)
            patch = patch_of(network, embedding[None])
            loss = supervised_loss(patch, region, box, config, taught_offsets(network.config, config.targets.offsets))
            offsets = validation_offsets(config)
            affinities = cosine_to_affinity(padded_affinities(patch, offsets)[0])[0].numpy()
    finally:
        network.train()
    labels, ignored = region.read_labels(box, ChunkCache(limit=0)), config.evaluate.ignore
    settings = config.fragments.method_settings()
    fragments = make_fragments(affinities, offsets, voxel_size=region.raw.voxel_size, **settings)
    thresholds = (0.0, *THRESHOLDS) if config.volumes.images else THRESHOLDS
    segmentations = merged_fragments(affinities, fragments, config.neighbours, thresholds)
    if config.volumes.images:
        annotated = region.read_annotated(box, ChunkCache(limit=0)) & ~has_any(labels, ignored)
        return {"loss": loss, **best_images(segmentations, without_labels(labels, ignored), annotated)}
    return {"loss": loss, **best_volume(segmentations, without_labels(labels, ignored))}


def check_validation(region: LabelledRegion, shape: Coordinate, images: bool, ignored: Sequence[int] = ()) -> None:
    """Refuse a region whose middle could only give perfect scores, as nothing that counts is labelled there, and say so
    where one object of a volume fills it, which whatever joins everything finds.

    Args:
        region: labelled, never trained on.
        shape: largest extent of the part that is looked at, in voxels.
        images: separate images, in which background that is annotated is scored, too.
        ignored: labels whose voxels do not count.

    Raises:
        UserError: no voxel there counts.
    """
    box, cache = _middle(region.box, shape), ChunkCache(limit=0)
    labels = region.read_labels(box, cache)
    counts = (region.read_annotated(box, cache) if images else labels > 0) & ~has_any(labels, ignored)
    if not counts.any():
        left = " but what evaluate.ignore leaves out" if ignored else ""
        raise UserError(
            f"nothing{left} is labelled in its middle, voxels {tuple(box.begin)} to {tuple(box.end)}, where training"
            " looks; give another region, or a larger training.validate_shape",
            region.where,
        )
    only = np.unique(labels[counts])
    if len(only) == 1 and not images:
        logger.warning(
            "%s: its middle, voxels %s to %s, has one object (label %d) and nothing beside it, so that scores during"
            " training say little; another region or a larger training.validate_shape has more",
            region.where,
            tuple(box.begin),
            tuple(box.end),
            only[0],
        )


def validation_offsets(config: Config) -> tuple[Offset, ...]:
    """The affinities that fragments are made of: those to the nearest neighbours, for mutex watershed all."""
    return config.neighbours if config.fragments.method == "watershed" else config.predict.offsets


def embed_box(
    network: EmbeddingNetwork,
    region: LabelledRegion,
    box: Box,
    tile: Coordinate,
    autocast: torch.dtype | None,
    stopped: Callable[[], bool],
) -> torch.Tensor:
    """Embedding of a box of a region's volume, (d, z, y, x) float32 in main memory; every voxel exact."""
    device = next(network.parameters()).device
    embedding: torch.Tensor | None = None
    for part in box.split(tile):
        if stopped():
            raise ValidationStopped
        raw_box, embedded = needed_input(network, part)
        raw = torch.from_numpy(region.normalised(region.raw.read_mirrored(raw_box)))[None, None].to(device)
        voxels = embed(network, raw, autocast)[0][spatial(part.relative_to(embedded))].cpu()
        if embedding is None:
            embedding = torch.empty((voxels.shape[0], *box.shape))
        embedding[spatial(part.relative_to(box))] = voxels
    assert embedding is not None
    return embedding


def supervised_affinities(targets: TargetsConfig, offsets: Sequence[Offset]) -> SupervisedAffinityLoss:
    """The loss of the labels that a config describes, at some of its offsets."""
    return SupervisedAffinityLoss(offsets, targets.background_weight, balanced=targets.balanced)


def supervised_loss(
    patch: EmbeddedPatch, region: LabelledRegion, box: Box, config: Config, offsets: Sequence[Offset]
) -> float:
    """The supervised loss, at some offsets, of what a network says of a box, (1, d, z, y, x)."""
    margin = erosion_margin(config.targets)
    grown = box.grow(margin, margin).intersect(region.box)
    cache = ChunkCache()
    labels = erode_boundaries(
        region.read_labels(grown, cache), config.targets.erosion, in_plane=config.targets.erosion_in_plane
    )
    labels = labels[box.relative_to(grown).slices]
    affinities, mask = affinity_targets(labels, region.read_annotated(box, cache), offsets)
    loss = supervised_affinities(config.targets, offsets)
    targets = (torch.from_numpy(array)[None] for array in (affinities, mask, labels != 0))
    return float(loss(patch, *targets))


def merged_fragments(
    affinities: np.ndarray, fragments: np.ndarray, neighbours: Sequence[Offset], thresholds: Sequence[float]
) -> dict[float, np.ndarray]:
    """The segmentation (z, y, x) at each of a few thresholds of agglomeration.

    Args:
        affinities: (k, z, y, x) float32 in [0, 1], first those to the nearest neighbours.
        fragments: (z, y, x).
        neighbours: offsets of the nearest neighbours.
        thresholds: merge scores up to which fragments are merged.
    """
    from ...segmentation import agglomerate_global, region_graph, relabel

    edges, count, mean = region_graph(affinities[: len(neighbours)], fragments, neighbours)
    ids = np.unique(fragments)
    luts = agglomerate_global(edges, mean, count, thresholds, nodes=ids[ids > 0])
    return {threshold: relabel(fragments, lut[:, 0], lut[:, 1]) for threshold, lut in luts.items()}


def best_volume(segmentations: dict[float, np.ndarray], labels: np.ndarray) -> dict[str, float]:
    """VOI at the best threshold; voxels with label 0 do not count."""
    from ...evaluation import variation_of_information

    scores = []
    for threshold, segmentation in segmentations.items():
        voi = variation_of_information(segmentation, labels)
        scores.append({"voi_split": voi.split, "voi_merge": voi.merge, "voi_sum": sum(voi), "threshold": threshold})
    return min(scores, key=lambda score: score["voi_sum"])


def best_images(segmentations: dict[float, np.ndarray], labels: np.ndarray, annotated: np.ndarray) -> dict[str, float]:
    """Scores at the threshold with the highest panoptic quality; label 0 is background where it is annotated."""
    from ...evaluation import best_of, contingency_table, mean_image_scores

    scores = {}
    for threshold, segmentation in segmentations.items():
        images = zip(segmentation, labels, annotated, strict=True)
        tables = (contingency_table(image[known], truth[known], ignore_labels=()) for image, truth, known in images)
        scores[threshold] = mean_image_scores(tables)
    best = best_of(scores)
    return {name: scores[best][name] for name in IMAGE_SCORES} | {"threshold": best}


def _middle(box: Box, shape: Coordinate) -> Box:
    """The part of a box around its middle that is at most `shape` large."""
    extent = Coordinate(min(have, want) for have, want in zip(box.shape, shape, strict=True))
    begin = box.begin + (box.shape - extent) // Coordinate(2, 2, 2)
    return Box(begin, begin + extent)
