"""The labels that a run is scored on: where they are, which of them count, and which regions they are of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from funlib.geometry import Coordinate

from ..config import EvaluateConfig, Region
from ..errors import UserError
from ..label_ids import has_any, has_id, without_labels
from ..run import Run, region_box
from ..segmentation import relabel
from ..volumes import Box, Nanometres
from ..volumes.aligned import Labels, Mask
from .contingency import Contingency
from .images import mean_image_scores, sections_of
from .overlaps import BLOCK_SHAPE, BoxReader, LabelRules, count_overlaps
from .seams import Overlap, find_seams
from .sweep import Scores, scores_of_table

NEURITE_VOXELS = 500
"""Pieces of neurites with fewer voxels say little about a segmentation."""


class Placed(BoxReader, Protocol):
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
        name: config path of the region.
        ignored: labels whose voxels do not count.
    """

    labels: Labels
    mask: Mask | None
    region: Box
    rules: LabelRules
    images: bool = False
    name: str = "volumes.segment"
    ignored: tuple[int, ...] = ()

    def read(self, box: Box) -> np.ndarray:
        """The labels of a box; 0 where they do not count."""
        labels = self.labels.read(box)
        if self.mask is not None:
            labels = np.where(self.mask.read(box) > 0, labels, np.uint64(0))
        return without_labels(labels, self.ignored)

    def count_ignored(self) -> dict[int, int]:
        """How many voxels of the region each label has that does not count."""
        counts = dict.fromkeys(self.ignored, 0)
        for block in self.region.split(BLOCK_SHAPE) if counts else ():
            labels = self.labels.read(block)
            for label in counts:
                counts[label] += int(np.count_nonzero(has_id(labels, label)))
        return counts

    def count_against(self, segmentation: Placed) -> Contingency:
        """The contingency table of a segmentation that covers the region, its labelled voxels only."""
        return count_overlaps(segmentation, self, self.region, shift=self.shift_of(segmentation), rules=self.rules)

    def count_images_against(self, segmentation: Placed) -> Iterator[Contingency]:
        """The contingency table of each image, its background included."""
        shift, known = self.shift_of(segmentation), _Annotated(self)
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
            shift=self.shift_of(segmentation),
            rules=self.rules,
            spacing=self.labels.voxel_size,
        )

    def ids_of(self, segmentation: Placed) -> np.ndarray:
        """(M,) uint64, what a segmentation that covers the region holds there, sorted; without 0."""
        shift, found = self.shift_of(segmentation), np.zeros(0, np.uint64)
        for block in self.region.split(BLOCK_SHAPE):
            found = np.union1d(found, segmentation.read(Box(block.begin - shift, block.end - shift)))
        return found[found > 0].astype(np.uint64)

    def score(self, segmentation: Placed) -> Scores:
        """Scores of a segmentation that covers the region."""
        if self.images:
            return mean_image_scores(self.count_images_against(segmentation))
        return scores_of_table(self.count_against(segmentation))

    def shift_of(self, volume: Placed) -> Coordinate:
        """Where a segmentation, or another volume of the run, begins: in voxels of raw."""
        places = zip(volume.offset, self.labels.offset, self.labels.voxel_size, strict=True)
        return Coordinate(round((own - of_raw) / size) for own, of_raw, size in places)


@dataclass(frozen=True)
class _Annotated:
    """Where labels are known, background included."""

    truth: Truth

    def read(self, box: Box) -> np.ndarray:
        """Whether voxels count, (z, y, x) bool."""
        if self.truth.ignored:
            labels, known = self.truth.labels.read_annotated(box)
            known = known & ~has_any(labels, self.truth.ignored)
        else:
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


def find_truth(run: Run) -> Truth:
    """The labels that choose the threshold: the validation region if it is a part of the segmented volume, otherwise
    all labels.

    Raises:
        UserError: the segmented volume has no labels, they lie outside the segmented region, or they are those of
            `volumes.test` too.
    """
    volumes = run.config.volumes
    validation = volumes.validate_
    if validation is None or validation.source != volumes.segment.source:
        return _truth_in(run, volumes.segment, "volumes.segment")
    truth = _truth_in(run, validation, "volumes.validate")
    require_separate_test(run, truth.labels.shape)
    return truth


def require_separate_test(run: Run, shape: Coordinate) -> None:
    """Refuse a test region that has voxels in common with the one that chooses the threshold.

    Args:
        run: the run.
        shape: extent of raw in voxels.

    Raises:
        UserError: it has; names the voxels.
    """
    held_out = run.config.volumes.held_out
    if "test" not in held_out:
        return
    validation, test = (region_box(held_out[name], shape, f"volumes.{name}") for name in ("validate", "test"))
    common = test.intersect(validation)
    if common.size:
        raise UserError(
            f"the voxels from {tuple(common.begin)} to {tuple(common.end)} belong to volumes.validate, too, which"
            " chooses the threshold; give regions that have none in common",
            "volumes.test",
        )


def find_test(run: Run) -> Truth | None:
    """The labels of `volumes.test`, on which nothing is chosen; None if there is no such region.

    Raises:
        UserError: they lie outside the segmented region, or the volume has none.
    """
    test = run.config.volumes.test
    return None if test is None else _truth_in(run, test, "volumes.test")


def _truth_in(run: Run, region: Region, name: str) -> Truth:
    """The labels of a region, as far as it was segmented."""
    volumes = run.config.volumes
    source = volumes.segment.source
    labels = run.open_labels(source)
    segmented = region_box(volumes.segment, labels.shape, "volumes.segment")
    box = segmented.intersect(region_box(region, labels.shape, name))
    if box.size == 0:
        raise UserError("lies outside volumes.segment, so nothing there was segmented", name)
    rules = label_rules(run.config.evaluate, volumes.images)
    return Truth(labels, run.open_mask(source), box, rules, volumes.images, name, run.config.evaluate.ignore)


def label_rules(config: EvaluateConfig, images: bool) -> LabelRules:
    """The rules of the config, by default those that suit neurites in a volume, or all objects of separate images."""
    relabel = not images if config.relabel is None else config.relabel
    minimum_size = (0 if images else NEURITE_VOXELS) if config.minimum_size is None else config.minimum_size
    return LabelRules(relabel, minimum_size)
