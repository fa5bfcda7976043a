"""The gunpowder pipeline from volumes to training batches; each is a pure function of the seed and the iteration."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType

import gunpowder as gp
import numpy as np
from funlib.geometry import Coordinate, Roi

from ...config import AugmentConfig, ScheduleConfig
from ...errors import UserError
from ...run import Run
from ...volumes import Box
from .deform import Deform
from .light_requests import Request, Spec
from .nodes import (
    AFFINITIES,
    AFFINITY_MASK,
    ANNOTATED,
    INTENSITY_RANGE,
    LABELS,
    RAW,
    DegradeRaw,
    MakeTargets,
    RandomPlace,
    RegionSource,
    RejectUnlabelled,
    ShiftSections,
    erosion_margin,
)
from .regions import ChunkCache, LabelledRegion, RawRegion, training_regions, unlabelled_regions

Arrays = dict[str, np.ndarray]
"""A batch: `raw` (b, 1, z, y, x) float32, `labels` (b, z, y, x) int64, `affinities`, `mask` (b, k, z, y, x) uint8. In
unlabelled samples, which come last, all but raw is 0."""

BATCH_KEYS = {"raw": RAW, "labels": LABELS, "affinities": AFFINITIES, "mask": AFFINITY_MASK}


@dataclass(frozen=True)
class Sampling:
    """All that decides what training batches look like.

    Attributes:
        run: the run, for volumes, augmentation, targets and seed.
        schedule: batch size and least share of labelled voxels.
        patch: voxels of raw in a sample.
        output: the part of the patch that the network predicts, counted from the patch's first voxel.
        unlabelled: how many samples of a batch, the last ones, come from the regions without labels.
    """

    run: Run
    schedule: ScheduleConfig
    patch: Coordinate
    output: Box
    unlabelled: int = 0


class SampleMaker:
    """Makes batches from a running gunpowder pipeline; a context manager."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.errors: list[UserError] = []
        self._cache = ChunkCache()
        self._labelled = labelled_pipeline(sampling, self._cache, self.errors)
        self._unlabelled = unlabelled_pipeline(sampling, self._cache, self.errors) if sampling.unlabelled else None
        self._built = ExitStack()

    def __enter__(self) -> SampleMaker:
        logging.getLogger("gunpowder").setLevel(logging.ERROR)
        with ExitStack() as built:
            for pipeline in (self._labelled, self._unlabelled):
                if pipeline is not None:
                    built.enter_context(gp.build(pipeline))
            self._built = built.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._built.__exit__(kind, error, traceback)

    def batch(self, iteration: int) -> Arrays:
        """The batch of an iteration.

        Raises:
            UserError: no place has enough labels, or a chunk cannot be read.
        """
        size = self.sampling.schedule.batch_size
        labelled = size - self.sampling.unlabelled
        with _global_randomness_untouched():
            samples = [self._sample(self._labelled, iteration, index) for index in range(labelled)]
            raws = [self._raw_sample(iteration, index) for index in range(labelled, size)]
        arrays = {name: np.stack([sample[key].data for sample in samples]) for name, key in BATCH_KEYS.items()}
        for name, array in arrays.items():
            if raws:
                rest = np.stack(raws) if name == "raw" else np.zeros((len(raws), *array.shape[1:]), array.dtype)
                arrays[name] = np.concatenate([array, rest])
        arrays["raw"] = arrays["raw"][:, None]
        return arrays

    def _raw_sample(self, iteration: int, index: int) -> np.ndarray:
        assert self._unlabelled is not None
        raw: np.ndarray = self._sample(self._unlabelled, iteration, index)[RAW].data
        return raw

    def _sample(self, pipeline: gp.Pipeline, iteration: int, index: int) -> gp.Batch:
        seed = np.random.SeedSequence([self.sampling.run.config.seed, iteration, index]).generate_state(1)[0]
        request = Request(random_seed=int(seed))
        request[RAW] = Spec(Roi((0, 0, 0), self.sampling.patch))
        if pipeline is self._labelled:
            for key in (LABELS, AFFINITIES, AFFINITY_MASK):
                request[key] = Spec(Roi(self.sampling.output.begin, self.sampling.output.shape))
        try:
            return pipeline.request_batch(request)
        except gp.PipelineRequestError:
            if self.errors:
                raise self.errors[0] from None
            raise


@contextmanager
def _global_randomness_untouched() -> Iterator[None]:
    """gunpowder seeds the global generators of `random` and numpy; put back what others rely on."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def labelled_pipeline(sampling: Sampling, cache: ChunkCache, errors: list[UserError]) -> gp.Pipeline:
    """The pipeline that makes single labelled samples; users' errors inside it are also appended to `errors`."""
    config = sampling.run.config
    regions = training_regions(sampling.run)
    pipeline = _any_of([_random_place(region, sampling, cache, errors) for region in regions], regions)
    if sampling.schedule.minimum_labelled > 0:
        pipeline += RejectUnlabelled(sampling.schedule.minimum_labelled, errors)
    for node in augmentation_nodes(config.augment):
        pipeline += node
    return pipeline + MakeTargets(config.targets)


def unlabelled_pipeline(sampling: Sampling, cache: ChunkCache, errors: list[UserError]) -> gp.Pipeline:
    """The same without labels: raw from the regions without labels, augmented alike."""
    regions = unlabelled_regions(sampling.run)
    augment = sampling.run.config.augment
    places = []
    for region in regions:
        missing = _missing_voxels(largest_request(sampling.patch, augment), region.box.shape)
        place = RegionSource(region, cache, errors) + gp.Pad(RAW, missing, mode="reflect")
        places.append(place + RandomPlace(region))
    pipeline = _any_of(places, regions)
    for node in augmentation_nodes(augment):
        pipeline += node
    return pipeline


def _any_of(places: Sequence[gp.Pipeline], regions: Sequence[RawRegion]) -> gp.Pipeline:
    """One of several places, drawn by the size of its region."""
    if len(places) == 1:
        return places[0]
    return tuple(places) + gp.RandomProvider([region.box.size for region in regions])


def _random_place(
    region: LabelledRegion, sampling: Sampling, cache: ChunkCache, errors: list[UserError]
) -> gp.Pipeline:
    """A region, padded so that every labelled voxel can be drawn, at a random location.

    Raw is mirrored beyond the region, as inference mirrors it at the volume's faces; labels there are not annotated.
    """
    margin = erosion_margin(sampling.run.config.targets)
    augment = sampling.run.config.augment
    missing = _missing_voxels(largest_request(sampling.output.shape + margin * 2, augment), region.box.shape)
    missing_raw = _missing_voxels(largest_request(sampling.patch, augment), region.box.shape)
    context = Coordinate((max(*sampling.output.begin, *(sampling.patch - sampling.output.end)),) * 3)
    place = RegionSource(region, cache, errors) + gp.Pad(RAW, missing + missing_raw + context * 2, mode="reflect")
    if max(missing) > 0:
        place = place + gp.Pad(LABELS, missing) + gp.Pad(ANNOTATED, missing)
    return place + RandomPlace(region)


def _missing_voxels(need: Coordinate, have: Coordinate) -> Coordinate:
    """By how much a region must be padded on each side for a request of `need` voxels to fit in."""
    return Coordinate(max(0, math.ceil((n - h) / 2)) for n, h in zip(need, have, strict=True))


def largest_request(shape: Coordinate, config: AugmentConfig) -> Coordinate:
    """Voxels that augmentation may read to fill a box of `shape`, at most."""
    depth, height, width = shape
    if config.transpose_all:
        depth = height = width = max(shape)
    elif config.transpose_yx:
        height = width = max(height, width)
    if config.shift_sections > 0:
        height, width = height + 2 * config.shift_voxels, width + 2 * config.shift_voxels
    if config.elastic is not None and config.elastic.probability > 0:
        if config.elastic.rotation:
            height = width = math.ceil(math.hypot(height, width)) + 2
        jitter = [math.ceil(6 * deviation) for deviation in config.elastic.jitter]
        depth, height, width = (n + 2 * j + 2 for n, j in zip((depth, height, width), jitter, strict=True))
    return Coordinate(depth, height, width)


def augmentation_nodes(config: AugmentConfig) -> list[gp.BatchFilter]:
    """The nodes of the configured augmentations, in the order in which they act."""
    nodes: list[gp.BatchFilter] = []
    if config.elastic is not None and config.elastic.probability > 0:
        nodes.append(Deform(config.elastic))
    if config.shift_sections > 0 and config.shift_voxels > 0:
        nodes.append(ShiftSections(config.shift_sections, config.shift_voxels))
    mirrored = [axis for axis, allowed in enumerate(config.mirror) if allowed]
    transposed = [0, 1, 2] if config.transpose_all else [1, 2] if config.transpose_yx else []
    nodes.append(gp.SimpleAugment(mirror_only=mirrored, transpose_only=transposed))
    if (*config.intensity_scale, *config.intensity_shift) != (1.0, 1.0, 0.0, 0.0):
        low, high = (shift * INTENSITY_RANGE for shift in config.intensity_shift)
        slab = (1, -1, -1) if config.intensity_per_section else None
        nodes.append(gp.IntensityAugment(RAW, *config.intensity_scale, low, high, clip=False, slab=slab))
    nodes.append(DegradeRaw(config))
    return nodes
