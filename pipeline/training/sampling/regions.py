"""The regions that training samples come from, labelled or not, and whether they can serve."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from funlib.geometry import Coordinate

from ...config import Config, Region
from ...errors import UserError
from ...networks.intensity import normalise_raw
from ...run import Run, region_box
from ...units import by
from ...volumes import Box, cells_of
from ...volumes.aligned import Labels, Mask
from ...volumes.intensity import IntensityRange
from ...volumes.volume import Volume

if TYPE_CHECKING:
    from .stored_affinities import StoredAffinities

CACHE_BYTES = 512 * 2**20
"""Decoded chunks that one loader process keeps in memory, over all its volumes."""


NEVER_SEEN = dict.fromkeys(("validate", "test"), "which training must never see")
"""Regions that a training region must have no voxels in common with, and why."""
BEFORE_TEST = {"test": "on which nothing may be chosen"}
"""The same for the validation region."""


class ChunkCache:
    """Reads boxes of volumes and keeps the chunks read last, up to a fixed number of bytes.

    Random patches meet the same chunks again and again; decoding them costs more than everything else in a sample.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self._chunks: OrderedDict[tuple[Any, ...], np.ndarray] = OrderedDict()
        self._bytes = 0

    def read(self, volume: Volume, box: Box) -> np.ndarray:
        """The voxels of a box inside a volume, (z, y, x) or (k, z, y, x).

        Raises:
            UserError: a chunk cannot be read; names it.
        """
        chunk = volume.chunks
        data = np.empty((*volume.array.shape[:-3], *box.shape), dtype=volume.dtype)
        for position in cells_of(box, chunk):
            voxels = self._chunk(volume, position)
            to_data, of_chunk = [], []
            for index, size, begin, end in zip(position, chunk, box.begin, box.end, strict=True):
                low, high = max(index * size, begin), min((index + 1) * size, end)
                to_data.append(slice(low - begin, high - begin))
                of_chunk.append(slice(low - index * size, high - index * size))
            here: tuple[Any, ...] = (..., *to_data)
            there: tuple[Any, ...] = (..., *of_chunk)
            data[here] = voxels[there]
        return data

    def _chunk(self, volume: Volume, position: tuple[int, ...]) -> np.ndarray:
        key = (volume.name, tuple(volume.choice.fixed.items()), position)  # channels of one array are volumes, too
        if key in self._chunks:
            self._chunks.move_to_end(key)
            return self._chunks[key]
        begin = Coordinate(position) * volume.chunks
        voxels = volume.read(Box(begin, begin + volume.chunks).intersect(volume.box))
        self._chunks[key] = voxels
        self._bytes += voxels.nbytes
        while self._bytes > self.limit and len(self._chunks) > 1:
            self._bytes -= self._chunks.popitem(last=False)[1].nbytes
        return voxels


@dataclass(frozen=True)
class RegionPlace:
    """Where a region lies in its source, which may not be imported yet.

    Attributes:
        box: the region's voxels.
        voxel_size: nanometres, order z, y, x.
        where: dotted config path, for messages.
    """

    box: Box
    voxel_size: tuple[float, float, float]
    where: str


@dataclass(frozen=True)
class RawRegion:
    """A region of a source, of which only raw is known.

    Attributes:
        raw: intensities.
        box: the region's voxels.
        where: dotted config path, for messages.
        intensity: what is black and white; None for the full range of the type.
        taught: affinities on disk that teach here.
    """

    raw: Volume
    box: Box
    where: str
    intensity: IntensityRange | None = field(default=None, kw_only=True)
    taught: StoredAffinities | None = field(default=None, kw_only=True)

    @property
    def place(self) -> RegionPlace:
        """Where it lies."""
        return RegionPlace(self.box, self.raw.voxel_size, self.where)

    def read_raw(self, box: Box, cache: ChunkCache) -> np.ndarray:
        """Intensities of a box, (z, y, x) float32 in [-1, 1]."""
        return self.normalised(cache.read(self.raw, box))

    def normalised(self, raw: np.ndarray) -> np.ndarray:
        """Intensities as networks see them, float32 in [-1, 1]."""
        return normalise_raw(raw, self.intensity)


@dataclass(frozen=True)
class LabelledRegion(RawRegion):
    """A region of a source with its labels.

    Attributes:
        labels: object ids on raw's voxels; 0 is background.
        mask: where the volume is to be used, or None for everywhere.
    """

    labels: Labels
    mask: Mask | None

    def read_labels(self, box: Box, cache: ChunkCache) -> np.ndarray:
        """Object ids of a box, (z, y, x) uint64; 0 where it is background or not annotated."""
        labels = self.labels.read(box, cache.read)
        if self.mask is not None:
            labels[self.mask.read(box, cache.read) == 0] = 0
        return labels

    def read_annotated(self, box: Box, cache: ChunkCache) -> np.ndarray:
        """Where labels are known, (z, y, x) bool."""
        annotated = self.labels.annotated(box, cache.read)
        if self.mask is not None:
            annotated &= self.mask.read(box, cache.read) != 0
        return annotated


def require_any_region(config: Config) -> None:
    """Refuse a training without a region.

    Raises:
        UserError: there is none; says so if none is needed.
    """
    if config.volumes.train:
        return
    ready_made = config.predict.checkpoint
    without = f"; {ready_made} (predict.checkpoint) predicts without any training" if ready_made else ""
    raise UserError(f"training needs at least one labelled region{without}", "volumes.train")


def training_regions(run: Run) -> list[LabelledRegion]:
    """The regions of `volumes.train`.

    Raises:
        UserError: there is none, or one has no labels, reaches beyond its source, or has voxels in common with the
            validation or the test region.
    """
    require_any_region(run.config)
    regions = [_open_region(run, index) for index in range(len(run.config.volumes.train))]
    for region, section in zip(regions, run.config.volumes.train, strict=True):
        refuse_shared(run, section, region.place, region.raw.shape, NEVER_SEEN)
    return regions


def validation_region(run: Run) -> LabelledRegion | None:
    """The region of `volumes.validate`, or None if there is none.

    Raises:
        UserError: it has no labels, reaches beyond its source, or has voxels in common with the test region.
    """
    section = run.config.volumes.validate_
    if section is None:
        return None
    region = _open_region(run, None)
    refuse_shared(run, section, region.place, region.raw.shape, BEFORE_TEST)
    return region


def unlabelled_regions(run: Run) -> list[RawRegion]:
    """The regions of `volumes.unlabelled`.

    Raises:
        UserError: one reaches beyond its source, or has voxels in common with the validation or the test region.
    """
    regions = []
    for index, section in enumerate(run.config.volumes.unlabelled):
        where = f"volumes.unlabelled.{index}"
        raw = run.open_raw(section.source)
        box = region_box(section, raw.shape, where)
        region = RawRegion(raw, box, where, intensity=run.intensity(section.source))
        refuse_shared(run, section, region.place, raw.shape, NEVER_SEEN)
        regions.append(region)
    return regions


def refuse_shared(run: Run, section: Region, place: RegionPlace, shape: Coordinate, others: Mapping[str, str]) -> None:
    """Refuse a region that shares voxels with others.

    Args:
        run: whose config has the regions.
        section: of the region.
        place: where it lies.
        shape: extent of its source in voxels.
        others: names of the others, and why.

    Raises:
        UserError: it does; names the voxels.
    """
    for name, other in run.config.volumes.held_out.items():
        if name not in others or other.source != section.source:
            continue
        common = place.box.intersect(region_box(other, shape, f"volumes.{name}"))
        if common.size > 0:
            raise UserError(
                f"the voxels from {tuple(common.begin)} to {tuple(common.end)} belong to volumes.{name}, too, "
                f"{others[name]}; give another region",
                place.where,
            )


def _open_region(run: Run, index: int | None) -> LabelledRegion:
    volumes = run.config.volumes
    region = volumes.validate_ if index is None else volumes.train[index]
    where = "volumes.validate" if index is None else f"volumes.train.{index}"
    assert region is not None
    raw = run.open_raw(region.source)
    require_labels(region.source, run.has_labels(region.source), where)
    box = region_box(region, raw.shape, where)
    labels, mask = run.open_labels(region.source), run.open_mask(region.source)
    return LabelledRegion(raw, box, where, labels, mask, intensity=run.intensity(region.source))


def require_labels(source: str, is_labelled: bool, where: str) -> None:
    """Refuse a source without labels for a region that needs them.

    Raises:
        UserError: it has none.
    """
    if not is_labelled:
        raise UserError(
            f"the source {source!r} has no labels; training and validation need them, and raw alone is segmented"
            " with predict.checkpoint pretrained:<name> (configs/raw.json)",
            where,
        )


def check_regions(
    regions: list[LabelledRegion], unlabelled: list[RawRegion], output_shape: Coordinate, isotropic: bool
) -> None:
    """Refuse regions that cannot fill one sample.

    Args:
        regions: the training regions.
        unlabelled: those without labels.
        output_shape: voxels that the network predicts from one patch, all of which must have labels, if there are any.
        isotropic: whether samples may exchange z with y and x.

    Raises:
        UserError: a region is smaller than a sample, carries no label though it should, has another voxel size than the
            others, or is anisotropic where it must not be.
    """
    check_places([region.place for region in (*regions, *unlabelled)], output_shape, isotropic)
    for region in regions:
        if not _has_labels(region):
            raise UserError("no voxel of the region carries a label", region.where)


def check_places(places: Sequence[RegionPlace], output_shape: Coordinate, isotropic: bool) -> None:
    """The part of `check_regions` that reads nothing.

    Raises:
        UserError: see there.
    """
    for place in places:
        _check_geometry(place, places[0], output_shape, isotropic)


def _check_geometry(region: RegionPlace, first: RegionPlace, output_shape: Coordinate, isotropic: bool) -> None:
    shape = region.box.shape
    if region.voxel_size != first.voxel_size:
        raise UserError(
            f"voxels of {by(region.voxel_size)} nm, but {first.where} has {by(first.voxel_size)} nm; "
            "all training regions need the same voxel size",
            region.where,
        )
    if any(have < need for have, need in zip(shape, output_shape, strict=True)):
        raise UserError(
            f"the region has {tuple(shape)} voxels, but one patch needs {tuple(output_shape)} of it; give a larger "
            "region or a smaller training.patch_shape",
            region.where,
        )
    if isotropic and len(set(region.voxel_size)) > 1:
        raise UserError(
            f"voxels of {by(region.voxel_size)} nm are not isotropic, z cannot be exchanged with y and x",
            "augment.transpose_all",
        )


def _has_labels(region: LabelledRegion) -> bool:
    """Whether any voxel is annotated as an object; stops at the first section block that has one."""
    depth = int(region.labels.chunks[0])
    cache = ChunkCache(limit=0)
    for begin in range(region.box.begin[0], region.box.end[0], depth):
        end = min(begin + depth, region.box.end[0])
        slab = Box(Coordinate(begin, *region.box.begin[1:]), Coordinate(end, *region.box.end[1:]))
        if region.read_labels(slab, cache).any():
            return True
    return False
