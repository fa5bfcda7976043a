"""What every network tells about itself, so that training and block-wise prediction need not know which one it is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from funlib.geometry import Coordinate
from torch import nn

from ..config import NetworkConfig, Offset
from ..errors import UserError
from ..volumes import Box
from .geometry import Geometry, round_down, round_up


@dataclass(frozen=True)
class Tap:
    """An inner layer whose features can be distilled.

    Attributes:
        name: as the config calls it; the same place has the same name in every network.
        channels: number of feature channels.
        downsampling: voxels per feature along each axis.
        field_of_view: most voxels along each axis that one feature sees.
        begin: the first feature's low corner, in voxels counted from the first voxel of the input. Feature i of an
            axis covers the input voxels from begin + i * downsampling.
    """

    name: str
    channels: int
    downsampling: Coordinate
    field_of_view: Coordinate
    begin: Coordinate


class EmbeddingNetwork(nn.Module, ABC):
    """A network that embeds every voxel, or gives its affinities to some neighbours, or both.

    Boxes and shapes have as many axes as the network has dimensions: (z, y, x) or (y, x), in voxels.

    Attributes:
        config: the config that builds it.
        dimensions: 2 for images, 3 for volumes.
        taps: inner layers that can be distilled.
        head: the 1x1 convolution from which the embeddings come, and behind them the logits of the plain affinities;
            its channels are laid out as in `stem.unfold`.
    """

    head: Any

    def __init__(self, config: NetworkConfig, geometry: Geometry, taps: Sequence[Tap]) -> None:
        super().__init__()
        self.config = config
        self.dimensions = len(geometry.context)
        self.taps = tuple(taps)
        self._geometry = geometry

    @property
    def context(self) -> Coordinate:
        """Voxels that an exact output needs around it on each side, in an input that begins and ends on the grid."""
        return self._geometry.context

    @property
    def least_length(self) -> float:
        """The length that shorter embeddings have in affinities, see `embedding_affinities`."""
        return 1.0 if self.config.background else 0.0

    @property
    def grid(self) -> Coordinate:
        """Shifting the input by multiples of this many voxels shifts the output; other shifts change it."""
        return self._geometry.grid

    @property
    def section_reach(self) -> int | None:
        """Of networks that embed a volume section by section, how many sections on each side an embedding sees; None
        for those that can only embed a volume as a whole.
        """
        return 0 if self.dimensions == 2 else None

    @property
    def stem(self) -> tuple[int, int, int]:
        """Voxels along z, y, x that the network takes as one place, whose channels they are."""
        return getattr(self.config, "stem", (1, 1, 1))

    @property
    def sections_together(self) -> int:
        """How many sections a window of a network with a `section_reach` embeds."""
        return self.stem[0]

    @property
    def affinity_offsets(self) -> tuple[Offset, ...]:
        """Offsets of the plain affinities, whose logits are the last channels of what the network gives."""
        return self.config.affinity_offsets

    def is_plain(self, offset: Sequence[int]) -> bool:
        """Whether the affinity of a pair of voxels at an offset is a plain one, counted from one voxel or the other."""
        there, back = tuple(offset), tuple(-step for step in offset)
        return there in self.affinity_offsets or back in self.affinity_offsets

    @property
    def head_channels(self) -> int:
        """Channels that the head gives for a voxel; fewer than the config's in a network made compact."""
        return int(self.head.out_channels) // math.prod(self.stem)

    @property
    def embedding_channels(self) -> int:
        """Dimensions of the embedding that the head gives, which are its first channels."""
        return self.head_channels - len(self.affinity_offsets)

    @property
    def embedded_axes(self) -> int:
        """Spatial axes of the windows that `embed_windows` takes."""
        return 3 if self.section_reach is None else 2

    def windows(self, raw: torch.Tensor) -> torch.Tensor:
        """What `embed_windows` takes for an input (B, 1, *input)."""
        self.output_shape(raw.shape[2:])
        return raw

    def embed_windows(self, windows: torch.Tensor) -> torch.Tensor:
        """What `forward` gives, of windows: (N, D, *output), one row per section of networks with a `section_reach`."""
        return self.forward_with_taps(windows)[0]

    @abstractmethod
    def forward_with_taps(self, raw: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Embed, and give the features of all taps.

        Args:
            raw: (B, 1, *input) normalised intensities.

        Returns:
            (B, D, *output), the embedding and behind it the logits of the plain affinities; and by tap name features
            (B, channels, *size).
        """

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """Embed: (B, 1, *input) normalised intensities to (B, D, *output).

        Raises:
            UserError: the input shape does not fit the network.
        """
        return self.forward_with_taps(raw)[0]

    def output_shape(self, input_shape: Sequence[int]) -> Coordinate:
        """Shape of the embedding of an input.

        Raises:
            UserError: the input shape does not fit the network; says which would.
        """
        shape, geometry = Coordinate(input_shape), self._geometry
        output = shape - geometry.crop * 2
        fits = (shape - geometry.remainder) % geometry.grid == Coordinate((0,) * self.dimensions)
        if not fits or min(output) < 1:
            nearest = self._input_at_least(Coordinate(max(1, extent) for extent in output) + geometry.crop * 2)
            raise UserError(
                f"the network {self.config.name} takes no input of {tuple(shape)} voxels; "
                f"the next larger one that it takes is {tuple(nearest)}"
            )
        return output

    def input_shape(self, output_shape: Sequence[int]) -> Coordinate:
        """The smallest input with so many exact output voxels in its middle."""
        return self._input_at_least(Coordinate(output_shape) + self.context * 2)

    def input_box(self, output_box: Box) -> Box:
        """The smallest input that embeds a box of voxels exactly.

        It begins at a multiple of the grid counted from voxel 0, so that all boxes of a volume agree with each other
        and with the whole volume. It may reach beyond the volume; mirror the intensities there.

        Args:
            output_box: the voxels wanted.
        """
        begin = round_down(output_box.begin - self.context, self.grid)
        return Box(begin, begin + self._input_at_least(output_box.end + self.context - begin))

    def output_box(self, input_box: Box) -> Box:
        """The voxels that `forward` embeds. Within `context` of an end of the input, they are exact only for networks
        with valid convolutions, which leave the others out.
        """
        return input_box.grow(-self._geometry.crop, -self._geometry.crop)

    def parameter_count(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def _input_at_least(self, shape: Coordinate) -> Coordinate:
        remainder = self._geometry.remainder
        return round_up(shape - remainder, self.grid) + remainder
