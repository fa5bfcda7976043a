"""What agglomeration never joins: fragments of different classes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import NanometreShape, NanometreVector, NonNegative, Positive, Section, TypeName

ClassId = Annotated[int, Field(ge=0, le=2**64 - 2), TypeName("whole number ≥ 0")]
"""The id of a class."""


class NeverJoinConfig(Section):
    """A volume of classes (soma, glia, myelin, out of tissue; whole numbers, or a mask). A fragment has the class of
    most of its voxels, of equally many the smallest. Fragments of different classes are never joined, at no threshold;
    0, where nothing is marked, is a class as well. Each voxel takes the class of the nearest voxel of the volume, which
    may be coarser or finer than raw and lie anywhere, as long as it covers the segmented region.
    """

    path: Annotated[str, Field(min_length=1)]
    """The file, folder or URL of the volume or of the container that holds it; it is read where it is. Chunks (zarr 2
    and 3, OME-NGFF, N5, precomputed) suit blocks; HDF5, npy and TIFF are read, too, of TIFF whole sections."""
    dataset: str | None = None
    """Array or pyramid inside a container. Default: the container itself, or its only array."""
    format: Literal["zarr2", "zarr3", "n5", "precomputed", "hdf5", "tiff", "npy"] | None = None
    """How `path` is stored. Default: recognised by what lies there."""
    level: int | str | None = None
    """Level of a pyramid, by its number (0 is the finest) or its path. Default: the finest."""
    channel: NonNegative | None = None
    """Which channel to read, if there are several, counted from 0."""
    time: NonNegative | None = None
    """Which point in time to read, if there are several, counted from 0."""
    axes: str | None = None
    """Order of the stored axes, as for sources."""
    voxel_size: NanometreShape | None = None
    """Nanometres, order z, y, x; overrides what the data say. Where nothing says it, the volume must have the shape of
    raw."""
    offset: NanometreVector | None = None
    """Position of the first voxel in nanometres; overrides what the data say. Where nothing says it, the volume must
    have the extent of raw."""
    alone: tuple[ClassId, ...] = ()
    """Classes whose fragments join nothing, not even each other: out of tissue, for example."""
    together: Annotated[
        tuple[Annotated[tuple[ClassId, ...], Field(min_length=2)], ...],
        TypeName("list of lists of two or more whole numbers ≥ 0"),
    ] = ()
    """Classes that are to be one class, for example `[[0, 4, 5]]` for axons and dendrites, and what is neither. They
    are put together before voxels are counted, and the class is called after the smallest."""
    outside: Annotated[int, Field(ge=0, lt=2**63), TypeName("whole number ≥ 0")] | None = None
    """The class of voxels that the volume does not cover. Default: it has to cover the segmented region."""
    samples: Positive = 16
    """So many chunks are looked at to tell whether the volume has changed."""
    allow_links: tuple[str, ...] = ()
    """Files and folders that links inside may lead to, as for sources."""

    @model_validator(mode="after")
    def _each_class_is_one_thing(self) -> NeverJoinConfig:
        named = [*self.alone, *(kind for group in self.together for kind in group)]
        twice = sorted({kind for kind in named if named.count(kind) > 1})
        if twice:
            raise ValueError(f"alone and together name the class {twice[0]} twice; each class is in one of them, once")
        return self
