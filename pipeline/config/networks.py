"""The networks a config can name. Sizes are what the networks themselves cannot derive."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from .base import NonNegative, Offset, Positive, Section, TypeName, VoxelShape

Widths = Annotated[tuple[Positive, ...], Field(min_length=2)]
DecoderWidths = Annotated[tuple[Positive, ...], Field(min_length=1)]
NO_STEM = (1, 1, 1)


def _along_y_and_x(stem: Any) -> Any:
    if isinstance(stem, int) and not isinstance(stem, bool):
        return (1, stem, stem)
    return tuple(stem) if isinstance(stem, list) else stem


Stem = Annotated[
    tuple[Positive, Positive, Positive],
    BeforeValidator(_along_y_and_x),
    TypeName("[z, y, x] in voxels (3 integers > 0, y as x), or one integer for y and x"),
]
"""Voxels that enter a network together."""
Activation = Literal["elu", "relu"]


class HeadSection(Section):
    """What a network says of a voxel: an embedding, plain affinities, or both."""

    name: str
    embedding_channels: NonNegative = 16
    """Dimensions of the voxel embedding; 0 for a network that has plain affinities in its place."""
    background: bool = False
    """Objects lie on a background, of which the network tells by embeddings shorter than 1: their affinities to any
    voxel are the smaller, the shorter they are. Without, only the directions of embeddings count."""
    affinity_offsets: tuple[Offset, ...] = ()
    """Offsets whose affinities the network gives itself, one sigmoid channel each, beside the embedding or in its
    place; affinities at other offsets are cosines of the embedding. Each must be one of `targets.offsets`."""

    @model_validator(mode="after")
    def _says_something(self) -> HeadSection:
        if not self.embedding_channels and not self.affinity_offsets:
            raise ValueError("embedding_channels is 0, so affinity_offsets must name the affinities that it gives")
        if len(set(self.affinity_offsets)) < len(self.affinity_offsets):
            raise ValueError("affinity_offsets names an offset twice")
        return self

    @property
    def voxel_channels(self) -> int:
        """Channels per voxel: the embedding, then the logits of the plain affinities."""
        return self.embedding_channels + len(self.affinity_offsets)

    def gives(self, offset: Offset) -> bool:
        """Whether it has affinities at an offset."""
        return self.embedding_channels > 0 or offset in self.affinity_offsets


class ResidualSection(HeadSection):
    """What the networks of residual blocks have in common."""

    stem: Stem = NO_STEM
    """Voxels along z, y, x that enter as the channels of one: the network then works on a grid so much coarser, and
    its head gives the embeddings of all of them. An integer stands for y and x. 2 halves the inference time of a small
    network or better, since nothing is computed at full resolution."""
    activation: Activation = "elu"
    """Of the residual blocks. `relu` is faster on CPUs."""

    @field_validator("stem")
    @classmethod
    def _as_along_y_as_along_x(cls, stem: tuple[int, int, int]) -> tuple[int, int, int]:
        if stem[1] != stem[2]:
            raise ValueError("a stem folds as many voxels along y as along x")
        return stem


class MalaConfig(HeadSection):
    """The published 3D U-Net MALA: valid convolutions, 84.02 M parameters at its defaults."""

    name: Literal["mala"] = "mala"
    widths: Widths = (12, 60, 300, 1500)
    """Channels of each level on the way down, finest first."""
    decoder_widths: DecoderWidths | None = None
    """Channels of each level on the way up, finest first, one fewer than `widths`. Default: as on the way down."""
    downsampling: tuple[VoxelShape, ...] = ((1, 3, 3), (1, 3, 3), (1, 3, 3))
    """Pooling factor between levels in voxels, order z, y, x."""

    @model_validator(mode="after")
    def _one_entry_between_levels(self) -> MalaConfig:
        for name in ("downsampling", "decoder_widths"):
            given = getattr(self, name)
            if given is not None and len(given) != len(self.widths) - 1:
                raise ValueError(f"{name} needs one entry between each two levels (one fewer than widths)")
        return self


class MalaTinyConfig(MalaConfig):
    """The published student of MALA: the same architecture, 0.368 M parameters at its defaults."""

    name: Literal["mala_tiny"] = "mala_tiny"  # type: ignore[assignment]
    widths: Widths = (8, 16, 32, 64)
    decoder_widths: DecoderWidths | None = (8, 32, 32)


class ResidualUnetConfig(ResidualSection):
    """A residual U-Net with same convolutions for 2D images or 3D volumes."""

    name: Literal["residual_unet"] = "residual_unet"
    dimensions: Literal[2, 3] = 3
    """2: images (y, x); 3: volumes (z, y, x)."""
    widths: Widths = (16, 32, 64, 128)
    """Channels of each level, finest first."""
    downsampling: tuple[VoxelShape, ...] | None = None
    """Pooling factor between levels, order z, y, x. 1 along z for images.
    Default: 1, 2, 2."""

    @model_validator(mode="after")
    def _one_factor_between_levels(self) -> ResidualUnetConfig:
        if self.downsampling is not None and len(self.downsampling) != len(self.widths) - 1:
            raise ValueError("downsampling needs one factor between each two levels (one fewer than widths)")
        if self.dimensions == 2 and any(factor[0] != 1 for factor in self.downsampling or ()):
            raise ValueError("downsampling of images is [1, y, x]")
        if self.dimensions == 2 and self.stem[0] != 1:
            raise ValueError("the stem of images is [1, y, x]")
        if self.dimensions == 2 and any(offset[0] for offset in self.affinity_offsets):
            raise ValueError("affinity_offsets of images are [0, y, x]")
        return self


class SectionUnetConfig(ResidualSection):
    """2D residual U-Net over neighbouring sections as channels: a 3D embedding at the price of 2D convolutions."""

    name: Literal["section_unet"] = "section_unet"
    sections: Positive = 7
    """Neighbouring sections that an embedding sees; an odd number. They enter as channels, and the middle one is
    embedded; with a stem of more than 1 along z, so many sections are embedded together."""
    widths: Widths = (16, 32, 64, 128)
    """Channels of each level, finest first; each level halves y and x."""

    @model_validator(mode="after")
    def _odd_sections(self) -> SectionUnetConfig:
        if self.sections % 2 == 0:
            raise ValueError("sections must be odd: as many sections above the embedded one as below")
        return self


NetworkConfig = Annotated[
    MalaConfig | MalaTinyConfig | ResidualUnetConfig | SectionUnetConfig, Field(discriminator="name")
]


def sees_one_section(network: NetworkConfig) -> bool:
    """Whether a network embeds every section by itself."""
    if isinstance(network, SectionUnetConfig):
        return network.sections == 1 and network.stem[0] == 1
    return isinstance(network, ResidualUnetConfig) and network.dimensions == 2
