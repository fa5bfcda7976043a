"""gunpowder nodes of our own, where gunpowder has none that is deterministic and bounded in memory and requests.

Positions are voxels (voxel size 1): augmentation follows the grid, whatever a voxel measures. Every node draws from
`request.random_seed`, so that a sample is a pure function of its request's seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import gunpowder as gp
import numpy as np
from funlib.geometry import Coordinate, Roi
from scipy import ndimage
from typing_extensions import override

from ...config import AugmentConfig, Offset, TargetsConfig
from ...distillation import affinity_targets, erode_boundaries
from ...errors import UserError
from ...volumes import Box
from .light_requests import Request, Spec
from .regions import ChunkCache, LabelledRegion, RawRegion
from .turned_offsets import picked, turned

RAW: gp.ArrayKey = gp.ArrayKey("RAW")
LABELS: gp.ArrayKey = gp.ArrayKey("LABELS")
ANNOTATED = gp.ArrayKey("ANNOTATED")
AFFINITIES: gp.ArrayKey = gp.ArrayKey("AFFINITIES")
AFFINITY_MASK: gp.ArrayKey = gp.ArrayKey("AFFINITY_MASK")
TAUGHT: gp.ArrayKey = gp.ArrayKey("TAUGHT")
"""Affinities of the teacher, from the disk."""

VOXEL = Coordinate(1, 1, 1)
INTENSITY_RANGE = 2.0
"""From the darkest (-1) to the brightest (1) value of normalised raw."""
BLANK = -1.0
LOW_CONTRAST = 0.1
"""Share of its contrast that a low-contrast section keeps."""


class RegionSource(gp.BatchProvider):
    """Raw of one region, of a labelled one also labels and annotation mask, and affinities on disk if they teach there;
    read through a cache of decoded chunks.
    """

    def __init__(self, region: RawRegion, cache: ChunkCache, errors: list[UserError]) -> None:
        self.region = region
        self.cache = cache
        self.errors = errors

    @override
    def setup(self) -> None:
        roi = Roi(self.region.box.begin, self.region.box.shape)
        self.provides(RAW, Spec(roi, VOXEL, interpolatable=True, dtype=np.float32))
        if isinstance(self.region, LabelledRegion):
            self.provides(LABELS, Spec(roi, VOXEL, interpolatable=False, dtype=np.uint64))
            self.provides(ANNOTATED, Spec(roi, VOXEL, interpolatable=False, dtype=np.uint8))
        if self.region.taught is not None:
            self.provides(TAUGHT, Spec(roi, VOXEL, interpolatable=False, dtype=np.float32))

    @override
    def provide(self, request: gp.BatchRequest) -> gp.Batch:
        batch = gp.Batch()
        for key, spec in request.array_specs.items():
            own_spec = self.spec[key].copy()
            own_spec.roi = spec.roi
            batch[key] = gp.Array(self._read(key, Box(spec.roi.begin, spec.roi.end)), own_spec)
        return batch

    def _read(self, key: gp.ArrayKey, box: Box) -> np.ndarray:
        try:
            if key == RAW:
                return self.region.read_raw(box, self.cache)
            if key == TAUGHT:
                assert self.region.taught is not None
                return self.region.taught.read(box, self.region.box, self.cache)
            assert isinstance(self.region, LabelledRegion)
            if key == LABELS:
                return self.region.read_labels(box, self.cache)
            return self.region.read_annotated(box, self.cache).astype(np.uint8)
        except UserError as error:
            self.errors.append(error)
            raise


class RandomPlace(gp.RandomLocation):
    """A random location that has voxels of the region in every array.

    A region that was padded for its largest request has places for a small one where there is only padding, which
    gunpowder's Pad cannot fill.
    """

    def __init__(self, region: RawRegion) -> None:
        super().__init__()
        self.region = Roi(region.box.begin, region.box.shape)

    @override
    def accepts(self, request: gp.BatchRequest) -> bool:
        return all(spec.roi.intersects(self.region) for spec in request.array_specs.values())


class Turn(gp.SimpleAugment):
    """Mirrors and transposes all arrays. Of the teacher's affinities, channels follow: they are those of other offsets
    then, of which the wanted ones are picked.

    Args:
        mirrored, transposed: axes that may be.
        stored: offsets of the teacher's channels on disk.
        wanted: offsets of the channels that are handed on.
    """

    def __init__(
        self,
        mirrored: Sequence[int],
        transposed: Sequence[int],
        stored: Sequence[Offset] = (),
        wanted: Sequence[Offset] = (),
    ) -> None:
        super().__init__(mirror_only=mirrored, transpose_only=transposed)
        self.stored, self.wanted = stored, wanted

    @override
    def process(self, batch: gp.Batch, request: gp.BatchRequest) -> None:
        super().process(batch, request)
        if TAUGHT in batch:
            offsets = [turned(offset, self.mirror, self.transpose) for offset in self.stored]
            batch[TAUGHT].data = picked(batch[TAUGHT].data, offsets, self.wanted)


class RejectUnlabelled(gp.BatchFilter):
    """Draws anew until enough voxels carry a label.

    gunpowder's own Reject repeats a seeded request with the same seed, and so never ends.

    Args:
        minimum_share: of the voxels that count.
        errors: where mistakes of the user are also noted.
        where: the array whose voxels count, all of which have labels.
    """

    attempts = 200

    def __init__(self, minimum_share: float, errors: list[UserError], where: gp.ArrayKey = LABELS) -> None:
        self.minimum_share = minimum_share
        self.errors = errors
        self.where = where

    @override
    def provide(self, request: gp.BatchRequest) -> gp.Batch:
        seeds = np.random.SeedSequence(request.random_seed).generate_state(self.attempts)
        for seed in seeds:
            attempt = Request(random_seed=int(seed))
            for key, spec in request.items():
                attempt[key] = spec.copy()
            batch = self.get_upstream_provider().request_batch(attempt)
            labels = batch[LABELS].crop(request[self.where].roi).data
            if np.count_nonzero(labels) >= self.minimum_share * labels.size:
                return batch
        error = UserError(
            f"in {self.attempts} random places fewer than {self.minimum_share:.0%} of the voxels carry a label; "
            "lower training.minimum_labelled or narrow the region to its labelled part",
            "volumes.train",
        )
        self.errors.append(error)
        raise error


class ShiftSections(gp.BatchFilter):
    """Lets sections, and all that follow, slip in the plane, raw and labels alike.

    The slips add up, but never to more than the largest one.
    """

    def __init__(self, probability: float, largest: int) -> None:
        self.probability = probability
        self.largest = largest

    @override
    def prepare(self, request: gp.BatchRequest) -> gp.BatchRequest:
        self.first = request.get_total_roi().begin[0]
        self.slips = self._draw(request)
        margin = Coordinate(0, self.largest, self.largest)
        dependencies = Request()
        for key, spec in request.items():
            dependencies[key] = spec.copy()
            dependencies[key].roi = spec.roi.grow(margin, margin)
        return dependencies

    def _draw(self, request: gp.BatchRequest) -> np.ndarray:
        """Slip of each section in voxels, (z, 2)."""
        rng = np.random.default_rng(request.random_seed)
        sections = request.get_total_roi().shape[0]
        steps = rng.integers(-self.largest, self.largest + 1, size=(sections, 2))
        steps[rng.random(sections) >= self.probability] = 0
        return np.clip(np.cumsum(steps, axis=0), -self.largest, self.largest)

    @override
    def process(self, batch: gp.Batch, request: gp.BatchRequest) -> gp.Batch:
        shifted = gp.Batch()
        for key, array in batch.arrays.items():
            spec = array.spec.copy()
            spec.roi = request[key].roi
            depth, height, width = spec.roi.shape
            data = np.empty(spec.roi.shape, dtype=array.data.dtype)
            for section in range(depth):
                y, x = self.slips[spec.roi.begin[0] + section - self.first] + self.largest
                data[section] = array.data[section, y : y + height, x : x + width]
            shifted[key] = gp.Array(data, spec)
        return shifted


class DegradeRaw(gp.BatchFilter):
    """Blur, noise, missing and low-contrast sections, on raw only."""

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config

    @override
    def setup(self) -> None:
        self.enable_autoskip()
        self.updates(RAW, self.spec[RAW])

    @override
    def prepare(self, request: gp.BatchRequest) -> gp.BatchRequest:
        dependencies = Request()
        dependencies[RAW] = request[RAW].copy()
        return dependencies

    @override
    def process(self, batch: gp.Batch, request: gp.BatchRequest) -> None:
        rng = np.random.default_rng(request.random_seed)
        batch[RAW].data = degrade(np.ascontiguousarray(batch[RAW].data), self.config, rng)


def degrade(raw: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Blur, noise, missing and low-contrast sections.

    Args:
        raw: (z, y, x) float32 in [-1, 1].
        config: amounts and probabilities.
        rng: source of randomness; the number of draws does not depend on the outcome.

    Returns:
        A new array of the same shape and type.
    """
    blurred, width = rng.random() < config.blur_probability, rng.uniform(0, config.blur)
    if blurred and width > 0:
        raw = ndimage.gaussian_filter(raw, (0, width, width))
    if config.noise > 0:
        deviation = np.float32(rng.uniform(0, config.noise) * INTENSITY_RANGE)
        noise = rng.standard_normal(raw.shape, dtype=np.float32)
        noise *= deviation
        noise += raw
        raw = noise
    else:
        raw = raw.copy()
    low_contrast = rng.random(len(raw)) < config.low_contrast_sections
    missing = rng.random(len(raw)) < config.missing_sections
    if low_contrast.any():
        sections = raw[low_contrast]
        mean = sections.mean(axis=(1, 2), keepdims=True)
        raw[low_contrast] = mean + LOW_CONTRAST * (sections - mean)
    raw[missing] = BLANK
    return raw


class MakeTargets(gp.BatchFilter):
    """Label erosion, instance numbers, affinities and their mask, all in one region."""

    def __init__(self, config: TargetsConfig) -> None:
        self.config = config
        self.offsets: Sequence[Offset] = config.offsets

    @override
    def setup(self) -> None:
        labels = self.spec[LABELS].copy()
        labels.dtype = np.int64
        self.updates(LABELS, labels)
        for key in (AFFINITIES, AFFINITY_MASK):
            self.provides(key, Spec(self.spec[LABELS].roi, VOXEL, interpolatable=False, dtype=np.uint8))

    @override
    def prepare(self, request: gp.BatchRequest) -> gp.BatchRequest:
        margin = erosion_margin(self.config)
        labels = request[LABELS].copy()
        labels.roi = labels.roi.grow(margin, margin)
        labels.dtype = None
        annotated = request[LABELS].copy()
        annotated.dtype = None
        dependencies = Request()
        dependencies[LABELS] = labels
        dependencies[ANNOTATED] = annotated
        return dependencies

    @override
    def process(self, batch: gp.Batch, request: gp.BatchRequest) -> gp.Batch:
        roi = request[LABELS].roi
        labels = erode_boundaries(
            np.ascontiguousarray(batch[LABELS].data), self.config.erosion, in_plane=self.config.erosion_in_plane
        )
        inner = Box(roi.begin, roi.end).relative_to(Box(batch[LABELS].spec.roi.begin, batch[LABELS].spec.roi.end))
        labels = labels[inner.slices]
        affinities, mask = affinity_targets(labels, batch[ANNOTATED].data != 0, self.offsets)
        made = gp.Batch()
        for key, data in ((LABELS, _instance_numbers(labels)), (AFFINITIES, affinities), (AFFINITY_MASK, mask)):
            spec = self.spec[key].copy()
            spec.roi = roi
            made[key] = gp.Array(data, spec)
        return made


def erosion_margin(config: TargetsConfig) -> Coordinate:
    """Voxels around a box that the erosion inside it depends on."""
    return Coordinate(0 if config.erosion_in_plane else config.erosion, config.erosion, config.erosion)


def _instance_numbers(labels: np.ndarray) -> np.ndarray:
    """Ids as small int64 numbers: 0 stays 0, the others count from 1 in the order of their size as numbers."""
    flat = labels.ravel()
    first = np.flatnonzero(np.append(True, flat[1:] != flat[:-1]))  # of each run of equal ids
    ids, numbers = np.unique(np.append(flat[first], np.uint64(0)), return_inverse=True)
    assert ids[0] == 0
    return np.repeat(numbers[:-1], np.diff(first, append=flat.size)).reshape(labels.shape)
