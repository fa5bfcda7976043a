"""The gunpowder pipeline from volumes to training batches; each is a pure function of the seed and the iteration."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TypeVar

import gunpowder as gp
import numpy as np
from funlib.geometry import Coordinate, Roi

from ...config import AugmentConfig, Offset, Region, ScheduleConfig
from ...distillation import UNKNOWN
from ...errors import UserError
from ...run import Run
from ...volumes import Box
from .affinity_files import open_affinities
from .deform import Deform
from .descriptor_node import DESCRIPTORS, Described, MakeDescriptors
from .light_requests import Request, Spec
from .nodes import (
    AFFINITIES,
    AFFINITY_MASK,
    ANNOTATED,
    INTENSITY_RANGE,
    LABELS,
    RAW,
    TAUGHT,
    DegradeRaw,
    MakeTargets,
    RandomPlace,
    RegionSource,
    RejectUnlabelled,
    ShiftSections,
    Turn,
    erosion_margin,
)
from .regions import ChunkCache, LabelledRegion, RawRegion, training_regions, unlabelled_regions
from .turned_offsets import needed_offsets

AnyRegion = TypeVar("AnyRegion", bound=RawRegion)
Arrays = dict[str, np.ndarray]
"""A batch: `raw` (b, 1, z, y, x) float32, `labels` (b, z, y, x) int64, `affinities`, `mask` (b, k, z, y, x) uint8. In
unlabelled samples, which come last, all of these but raw is 0. Where affinities on disk teach, also `taught` (b, k, z,
y, x) float32, `UNKNOWN` where they are not known; where descriptors are learnt, also `descriptors` (b, c, z, y, x)
float32, which mean nothing where `labels` is 0."""

LABEL_KEYS = {"labels": LABELS, "affinities": AFFINITIES, "mask": AFFINITY_MASK}


@dataclass(frozen=True)
class Sampling:
    """All that decides what training batches look like.

    Attributes:
        run: the run, for volumes, augmentation, targets and seed.
        schedule: batch size and least share of labelled voxels.
        patch: voxels of raw in a sample.
        output: the part of the patch that the network predicts, counted from the patch's first voxel.
        unlabelled: how many samples of a batch, the last ones, come from the regions without labels.
        taught: offsets of the affinities on disk that teach; none if no such do.
        described: the local shape descriptors that are learnt; None if none are.
    """

    run: Run
    schedule: ScheduleConfig
    patch: Coordinate
    output: Box
    unlabelled: int = 0
    taught: tuple[Offset, ...] = ()
    described: Described | None = None

    @property
    def labelled(self) -> dict[str, gp.ArrayKey]:
        """What only labelled samples have, by the name in a batch."""
        return LABEL_KEYS if self.described is None else {**LABEL_KEYS, "descriptors": DESCRIPTORS}

    @property
    def everywhere(self) -> dict[str, gp.ArrayKey]:
        """What every sample has, by the name in a batch."""
        return {"raw": RAW, "taught": TAUGHT} if self.taught else {"raw": RAW}

    @property
    def keys(self) -> dict[str, gp.ArrayKey]:
        """All arrays of a batch, by their names."""
        return self.everywhere | self.labelled


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
            rest = [self._unlabelled_sample(iteration, index) for index in range(labelled, size)]
        arrays = {}
        for name, key in self.sampling.everywhere.items():
            arrays[name] = np.stack([sample[key].data for sample in (*samples, *rest)])
        for name, key in self.sampling.labelled.items():
            array = np.stack([sample[key].data for sample in samples])
            nothing = np.zeros((len(rest), *array.shape[1:]), array.dtype)
            arrays[name] = np.concatenate([array, nothing]) if rest else array
        arrays["raw"] = arrays["raw"][:, None]
        return arrays

    def _unlabelled_sample(self, iteration: int, index: int) -> gp.Batch:
        assert self._unlabelled is not None
        return self._sample(self._unlabelled, iteration, index)

    def _sample(self, pipeline: gp.Pipeline, iteration: int, index: int) -> gp.Batch:
        seed = np.random.SeedSequence([self.sampling.run.config.seed, iteration, index]).generate_state(1)[0]
        request = Request(random_seed=int(seed))
        request[RAW] = Spec(Roi((0, 0, 0), self.sampling.patch))
        for name, key in self.sampling.keys.items():
            if key != RAW and (name not in self.sampling.labelled or pipeline is self._labelled):
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
    regions = _with_teachers(sampling, training_regions(sampling.run), config.volumes.train)
    pipeline = _any_of([_random_place(region, sampling, cache, errors) for region in regions], regions)
    if sampling.schedule.minimum_labelled > 0:
        where = LABELS if sampling.described is None else ANNOTATED  # labels around the sample do not count
        pipeline += RejectUnlabelled(sampling.schedule.minimum_labelled, errors, where)
    for node in augmentation_nodes(config.augment, sampling.taught):
        pipeline += node
    if sampling.described is not None:
        pipeline += MakeDescriptors(sampling.described)
    return pipeline + MakeTargets(config.targets)


def unlabelled_pipeline(sampling: Sampling, cache: ChunkCache, errors: list[UserError]) -> gp.Pipeline:
    """The same without labels: raw from the regions without labels, augmented alike."""
    regions = _with_teachers(sampling, unlabelled_regions(sampling.run), sampling.run.config.volumes.unlabelled)
    augment = sampling.run.config.augment
    places = []
    for region in regions:
        missing = _missing_voxels(largest_request(sampling.patch, augment), region.box.shape)
        place = RegionSource(region, cache, errors) + gp.Pad(RAW, missing, mode="reflect")
        places.append(_with_unknown_around(place, region) + RandomPlace(region))
    pipeline = _any_of(places, regions)
    for node in augmentation_nodes(augment, sampling.taught):
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
    if sampling.described is not None:  # what is around a sample never limits where it may lie
        place = place + gp.Pad(LABELS, None)
    return _with_unknown_around(place, region) + RandomPlace(region)


def _with_unknown_around(place: gp.Pipeline, region: RawRegion) -> gp.Pipeline:
    """Beyond the region, affinities on disk are not known; that never limits where a sample may lie."""
    return place if region.taught is None else place + gp.Pad(TAUGHT, None, value=UNKNOWN)


def _with_teachers(sampling: Sampling, regions: Sequence[AnyRegion], sections: Sequence[Region]) -> Sequence[AnyRegion]:
    """The regions with the affinities on disk that teach there, if such do."""
    if not sampling.taught:
        return regions
    needed = needed_offsets(sampling.taught, sampling.run.config.augment)
    opened = {source: open_affinities(sampling.run, source) for source in {section.source for section in sections}}
    return [
        replace(region, taught=opened[section.source].telling(needed))
        for region, section in zip(regions, sections, strict=True)
    ]


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


def augmentation_nodes(config: AugmentConfig, taught: Sequence[Offset] = ()) -> list[gp.BatchFilter]:
    """The nodes of the configured augmentations, in the order in which they act.

    Args:
        config: which ones.
        taught: offsets of the affinities on disk in which the student is compared.
    """
    nodes: list[gp.BatchFilter] = []
    if config.elastic is not None and config.elastic.probability > 0:
        nodes.append(Deform(config.elastic))
    if config.shift_sections > 0 and config.shift_voxels > 0:
        nodes.append(ShiftSections(config.shift_sections, config.shift_voxels))
    mirrored = [axis for axis, allowed in enumerate(config.mirror) if allowed]
    transposed = [0, 1, 2] if config.transpose_all else [1, 2] if config.transpose_yx else []
    nodes.append(Turn(mirrored, transposed, needed_offsets(taught, config), taught))
    if (*config.intensity_scale, *config.intensity_shift) != (1.0, 1.0, 0.0, 0.0):
        low, high = (shift * INTENSITY_RANGE for shift in config.intensity_shift)
        slab = (1, -1, -1) if config.intensity_per_section else None
        nodes.append(gp.IntensityAugment(RAW, *config.intensity_scale, low, high, clip=False, slab=slab))
    nodes.append(DegradeRaw(config))
    return nodes
