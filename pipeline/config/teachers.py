"""Who teaches a student: a network of ours, affinities that lie on disk, or a module that another program exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import NanometreShape, NanometreVector, NonNegative, Offset, Section, VoxelShape
from .networks import NetworkConfig
from .training import ScheduleConfig
from .volumes import SourceName


def _refuse_repeated(channels: Sequence[int] | None) -> None:
    """Make sure that every offset has a channel of its own.

    Raises:
        ValueError: two have the same.
    """
    given = channels or ()
    repeated = next((channel for index, channel in enumerate(given) if channel in given[:index]), None)
    if repeated is not None:
        raise ValueError(f"channels names channel {repeated} twice; each of offsets has a channel of its own")


class TeacherConfig(Section):
    """The heavy network that segments well."""

    kind: Literal["network"] = "network"
    network: NetworkConfig
    """Architecture."""
    training: ScheduleConfig = ScheduleConfig()
    """Schedule."""
    checkpoint: str | None = None
    """A trained checkpoint to use instead of training one."""


class StoredAffinitiesConfig(Section):
    """Affinities of one source on disk: what stage 02 of a run has written, or any other program. They are read where
    they are, and must have raw's voxel size; they may cover a part of raw. Files of chunks that are not there, and
    voxels beside the array, teach nothing.
    """

    paths: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    """Containers or arrays, one or several: zarr 2 or 3, N5, precomputed, HDF5 or npy; a folder or URL. Of several
    (of as many teachers) the mean is taken where all of them say something; what follows counts for all."""
    dataset: str | None = None
    """Array inside the containers. Default: `affinities`, or the container itself if it is an array."""
    offsets: Annotated[tuple[Offset, ...], Field(min_length=1)] | None = None
    """What the channels are, in their order: channel k at voxel p is the affinity of p and p + offset k. Default: what
    the attribute `offsets` of the array says, which stage 02 writes."""
    channels: tuple[NonNegative, ...] | None = None
    """The channels that `offsets` names, counted from 0. Default: the first ones."""
    range: tuple[float, float] | None = None
    """The stored values that mean no affinity and full affinity; the first may be the larger one, of boundary maps.
    Default: 0 and 255 of bytes, 0 and 1 of fractions. Values beyond are an error."""
    axes: str | None = None
    """Order of the stored axes, the slowest first, such as `czyx`. Default: what the data say, otherwise `czyx`."""
    voxel_size: NanometreShape | None = None
    """Nanometres, order z, y, x; overrides what the data say."""
    offset: NanometreVector | None = None
    """Position of the first voxel in nanometres; overrides what the data say. Where nothing says it, the array must
    have the shape of raw."""
    allow_links: tuple[str, ...] = ()
    """Files and folders that links inside may lead to, as for sources."""

    @model_validator(mode="after")
    def _channels_and_range_fit(self) -> StoredAffinitiesConfig:
        if self.channels is not None and (self.offsets is None or len(self.channels) != len(self.offsets)):
            raise ValueError("channels names one channel for each of offsets, which must be given with them")
        _refuse_repeated(self.channels)
        if self.range is not None and self.range[0] == self.range[1]:
            raise ValueError("range names two different values: that of no affinity and that of full affinity")
        return self


class AffinitiesTeacherConfig(Section):
    """Affinities on disk teach: no teacher runs in a training step, which takes less than half of the time then. Terms
    that compare embeddings need `network`.
    """

    kind: Literal["affinities"] = "affinities"
    affinities: dict[SourceName, StoredAffinitiesConfig]
    """Where the affinities lie of each source that the student is trained on (`volumes.train`, `volumes.unlabelled`),
    by its name."""


class TorchscriptTeacherConfig(Section):
    """A module that another program exported with `torch.jit` teaches. It runs in each step, on the raw that the
    student sees. Such a file is a program: name only those that you trust. Terms that compare embeddings need
    `network`.
    """

    kind: Literal["torchscript"] = "torchscript"
    module: Annotated[str, Field(min_length=1)]
    """The file. The module takes (batch, 1, z, y, x) float32 and gives (batch, channels, z, y, x)."""
    input_shape: VoxelShape
    """Voxels of raw that it takes; larger patches are taught tile by tile."""
    output_shape: VoxelShape
    """Voxels that it gives of them, those in the middle."""
    offsets: Annotated[tuple[Offset, ...], Field(min_length=1)]
    """What its channels are, in their order: channel k at voxel p is the affinity of p and p + offset k."""
    channels: tuple[NonNegative, ...] | None = None
    """The channels that `offsets` names, counted from 0. Default: the first ones."""
    intensities: tuple[float, float] = (-1.0, 1.0)
    """What it expects black and white to be."""
    output: Literal["affinities", "logits"] = "affinities"
    """What it gives: affinities from 0 to 1, or their logits, whose sigmoid is taken."""

    @model_validator(mode="after")
    def _shapes_and_channels_fit(self) -> TorchscriptTeacherConfig:
        margins = [taken - given for taken, given in zip(self.input_shape, self.output_shape, strict=True)]
        if any(margin < 0 or margin % 2 for margin in margins):
            raise ValueError("output_shape is the middle of input_shape: smaller by an even number, or as large")
        if self.channels is not None and len(self.channels) != len(self.offsets):
            raise ValueError("channels names one channel for each of offsets")
        _refuse_repeated(self.channels)
        if self.intensities[0] == self.intensities[1]:
            raise ValueError("intensities names two different values: those of black and of white")
        return self

    @property
    def context(self) -> tuple[int, int, int]:
        """Voxels of raw around what it gives, on each side."""
        z, y, x = ((i - o) // 2 for i, o in zip(self.input_shape, self.output_shape, strict=True))
        return z, y, x


AnyTeacherConfig = Annotated[
    TeacherConfig | AffinitiesTeacherConfig | TorchscriptTeacherConfig, Field(discriminator="kind")
]
