"""Where volumes come from, and which parts train, validate and get segmented."""

from __future__ import annotations

from math import inf
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import (
    Fraction,
    NanometreShape,
    NanometreVector,
    NonNegative,
    Positive,
    Probability,
    Section,
    TypeName,
    VoxelShape,
    VoxelVector,
)


class ChosenSections(Section):
    """Some sections of a stack: those with a certain number in a list, for example the images of one split."""

    dataset: str
    """Dataset in `path` with one whole number per section."""
    equals: int
    """Sections with this number are imported, in their order."""


class FileSource(Section):
    """A volume in files, here or elsewhere: zarr 2 or 3 (OME-NGFF too), N5 and neuroglancer precomputed are read where
    they are; TIFF stacks (file or folder), HDF5 and npy are converted into the run first.
    """

    kind: Literal["file"] = "file"
    path: Annotated[str, Field(min_length=1)]
    """The file, folder or URL (`file://`, `http://`, `https://`, `s3://`, `gs://`) of the raw volume or of the
    container that holds it. `~` and `${VARIABLES}` are expanded. A relative path counts from the current directory; in
    a `config.json` whose `run_directory` is `.`, from the folder of that file."""
    format: Literal["zarr2", "zarr3", "n5", "precomputed", "hdf5", "tiff", "npy"] | None = None
    """How `path` is stored. Default: recognised by what lies there."""
    raw: str | None = None
    """Dataset inside a container that holds the raw intensities, for example `volumes/raw`; an array or a pyramid.
    Default: the container itself if it is an array or a pyramid, or the one dataset called `raw`, `volumes/raw` or
    `main`. Leave out for TIFF."""
    labels_path: str | None = None
    """The file, folder or URL that holds the labels, if it is another one than `path`."""
    labels: str | None = None
    """Dataset that holds the labels. Default: `labels`, `volumes/labels/neuron_ids` or `stack` if there is one, the one
    label image of an OME-NGFF container, or the only dataset of `labels_path`; otherwise the volume is unlabelled. With
    a TIFF `labels_path`, leave out. A table `transforms` beside `stack` merges supervoxels into bodies (FlyEM's
    layout). Labels may cover a part of raw, at an offset of their own, and may be coarser by whole factors; the rest
    counts as not annotated. `""`: read no labels."""
    mask_path: str | None = None
    """The file, folder or URL that holds the mask, if it is another one than `path`."""
    mask: str | None = None
    """Dataset that is non-zero where the volume is to be used: for training, scores, and blocks to segment
    (`predict.skip_empty`). Default: the only dataset of `mask_path`; without one, the volume is used everywhere. With a
    TIFF `mask_path`, leave out. Where it does not cover raw, raw is not used."""
    level: int | str | None = None
    """Level of raw's pyramid, by its number (0 is the finest) or its path. Labels and mask are taken from the level of
    theirs that fits. Default: the finest."""
    channel: NonNegative | None = None
    """Which channel to read, if there are several, counted from 0."""
    time: NonNegative | None = None
    """Which point in time to read, if there are several, counted from 0."""
    voxel_size: NanometreShape | None = None
    """Size of a voxel of raw in nanometres, order z, y, x; overrides what the data say. Required where they do not."""
    offset: NanometreVector | None = None
    """Position of raw's first voxel in nanometres; overrides what the data say, of labels and mask too, which then
    begin where raw begins. Default: what the data say, otherwise 0."""
    axes: str | None = None
    """Order of the stored axes, the slowest first, one letter each: `z`, `y`, `x`, `c` for channels and `t` for time,
    for example `zyx`, `xyz` or `tczyx`; `n` instead of `z` counts separate images. Default: what the data say,
    otherwise `zyx`."""
    intensity: Literal["auto", "dtype", "percentiles"] | tuple[float, float] = "auto"
    """Which intensities of raw are black and white for the networks: `dtype` for the full range of its type, `[low,
    high]`, or `percentiles`, measured once on a sample and written into the run. `auto`: the full range for 8 bits
    without sign, `percentiles` for all others."""
    copy_: Annotated[bool, Field(alias="copy")] = False
    """Copy the volume into the run although it could be read where it is."""
    allow_links: tuple[str, ...] = ()
    """Files and folders that links in the volume may lead to: external storage, external links and virtual datasets of
    HDF5, symbolic links inside containers of chunks. Default: none may lead out of the file or container, since a
    stranger's could lead to any file of yours."""
    samples: Positive = 16
    """Of a volume that is read where it is, so many chunks are looked at to tell whether it has changed."""
    listed_chunks: NonNegative = 1_000_000
    """Of a volume that is read where it is, the files of chunks are listed when the run begins to use it, unless there
    are more than this: a chunk that is missing later is then an error, and one that was missing then is empty. A
    million take 20 seconds on a disk, and minutes in a bucket. Web servers cannot list."""
    sections: ChosenSections | None = None
    """Import only some of the sections. Default: all."""


class PhantomSource(Section):
    """A synthetic EM volume: neurites with membranes, organelles, noise and section defects."""

    kind: Literal["phantom"] = "phantom"
    shape: VoxelShape = (64, 256, 256)
    """Extent of the volume in voxels, order z, y, x."""
    voxel_size: NanometreShape = (40, 8, 8)
    """Size of a voxel. Neurites keep their physical proportions: an anisotropic size gives ssTEM-like sections."""
    seed: int = 0
    """The volume is a pure function of this seed and the fields of this section."""
    neurite_spacing: Annotated[float, Field(gt=0)] = 240.0
    """Mean distance between neighbouring neurites in nanometres."""
    membrane_width: Annotated[float, Field(gt=0)] = 24.0
    """Width of a membrane in nanometres."""
    organelles: Probability = 0.5
    """Probability that a neurite carries mitochondria."""
    noise: Annotated[float, Field(ge=0)] = 0.06
    """Standard deviation of the imaging noise, as a share of the intensity range."""
    missing_sections: Probability = 0.0
    """Share of sections that are lost (all zero)."""
    dark_sections: Probability = 0.02
    """Share of sections with low contrast and brightness."""
    block_shape: VoxelShape = (32, 128, 128)
    """The phantom is written in blocks of this shape; the result does not depend on it."""


class PublicSource(Section):
    """A published data set, by name. It is downloaded once and cached."""

    kind: Literal["public"] = "public"
    name: str
    """One of the registered names; `python -m pipeline.datasets` lists them with size, licence and reference."""
    cache: str | None = None
    """Folder for downloads. Default: the user's cache folder, or `$EMDISTILL_CACHE`."""


SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$"), TypeName("a name of letters, digits, - and _")]
"""Names a source in the config, its container on disk and its place in error lines."""

Source = Annotated[FileSource | PhantomSource | PublicSource, Field(discriminator="kind")]


class Region(Section):
    """A part of a source: voxel bounds (`begin`, `end`), or a share of the sections (`z_share`), or neither for all."""

    source: str
    """Name of the source in `volumes.sources`."""
    begin: VoxelVector | None = None
    """First voxel, order z, y, x, counted from the first voxel of the source. Default: 0, 0, 0."""
    end: VoxelVector | None = None
    """One past the last voxel. Default: the end of the source."""
    z_share: tuple[Fraction, Fraction] | None = None
    """The sections from this share of the volume's depth to that, for example `[0.0, 0.75]`."""

    @model_validator(mode="after")
    def _bounds_or_share(self) -> Region:
        if self.z_share is not None:
            if self.begin is not None or self.end is not None:
                raise ValueError("give either z_share or begin/end, not both")
            if self.z_share[0] >= self.z_share[1]:
                raise ValueError("z_share must go from a smaller to a larger share")
        if self.begin is not None and min(self.begin) < 0:
            raise ValueError("begin must not be negative")
        bounded = self.begin is not None and self.end is not None
        if bounded and any(b >= e for b, e in zip(self.begin or (), self.end or (), strict=True)):
            raise ValueError("every component of end must be larger than that of begin")
        return self

    def surely_overlaps(self, other: Region) -> bool:
        """Whether two regions have voxels in common, as far as that can be known without the extent of the source."""
        if self.source != other.source:
            return False
        if self._is_whole_source() or other._is_whole_source():
            return True
        if self.z_share is not None and other.z_share is not None:
            return max(self.z_share[0], other.z_share[0]) < min(self.z_share[1], other.z_share[1])
        if self.z_share is not None or other.z_share is not None:
            return False  # only the extent of the source tells
        begins = zip(self.begin or (0, 0, 0), other.begin or (0, 0, 0), strict=True)
        ends = zip(self.end or (inf, inf, inf), other.end or (inf, inf, inf), strict=True)
        return all(max(begin) < min(end) for begin, end in zip(begins, ends, strict=True))

    def _is_whole_source(self) -> bool:
        return self.z_share is None and self.begin is None and self.end is None


class VolumesConfig(Section):
    """The volumes of a run: sources, and the regions that training, validation and segmentation use."""

    sources: dict[SourceName, Source]
    """Every volume of the run, under a name of your choice."""
    train: tuple[Region, ...] = ()
    """Labelled regions that teacher and student learn from."""
    unlabelled: tuple[Region, ...] = ()
    """Regions of which the student sees raw only, as its teacher predicts it (`student.distillation.unlabelled`). Any
    labels of theirs are never read; none may overlap `validate` or `test`."""
    validate_: Annotated[Region | None, Field(alias="validate")] = None
    """A labelled region that training never sees: validation during training, choice of the threshold, and scores,
    unless there is a `test` region."""
    test: Region | None = None
    """A labelled region that neither training nor the choice of the threshold sees: scores at the threshold that was
    chosen on `validate` are reported on it. Both lie in the source of `segment`, and overlap neither each other nor
    `train` or `unlabelled`."""
    segment: Region
    """The region that is predicted and segmented; if its source has to be converted, it goes into `volume.zarr`."""
    images: bool = False
    """The sections are separate images: nothing crosses from one to the next. Networks are 2D, all offsets have z = 0
    (`predict.offsets` start with [0,-1,0], [0,0,-1]), fragments and graph stay within sections, the same label in two
    sections is two objects, and scores are means over the images."""
    import_block: VoxelShape = (32, 256, 256)
    """Volumes are converted in blocks of this many voxels; also the chunk shape of the converted arrays."""

    @property
    def held_out(self) -> dict[str, Region]:
        """The regions that training must never see, by name."""
        given = {"validate": self.validate_, "test": self.test}
        return {name: region for name, region in given.items() if region is not None}

    @model_validator(mode="after")
    def _sources_exist(self) -> VolumesConfig:
        regions = [("train", region) for region in self.train] + [("segment", self.segment)]
        regions += [("unlabelled", region) for region in self.unlabelled]
        regions += self.held_out.items()
        for name, region in regions:
            if region.source not in self.sources:
                known = ", ".join(sorted(self.sources))
                raise ValueError(f"{name} names the source {region.source!r}, which is not in sources ({known})")
        return self

    @model_validator(mode="after")
    def _held_out_regions_are_never_seen(self) -> VolumesConfig:
        for name, regions in (("train", self.train), ("unlabelled", self.unlabelled)):
            for held_out, region in self.held_out.items():
                if any(seen.surely_overlaps(region) for seen in regions):
                    raise ValueError(f"{name} overlaps {held_out}, which training must never see; give another region")
        return self

    @model_validator(mode="after")
    def _test_reports_what_validate_chose(self) -> VolumesConfig:
        if self.test is None:
            return self
        if self.validate_ is None:
            raise ValueError("test needs a validate region, on which the threshold is chosen")
        for name, region in self.held_out.items():
            if region.source != self.segment.source:
                raise ValueError(
                    f"{name} lies in {region.source!r}, but {self.segment.source!r} is segmented; with a test region,"
                    " validate and test lie in the source of segment"
                )
        if self.test.surely_overlaps(self.validate_):
            raise ValueError(
                "test overlaps validate, which chooses the threshold; give regions that have none in common"
            )
        return self
