"""A patch as a network embeds it, and what the losses derive from that."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from ..offsets import Index, pair_slices
from .maps import pair_products, unit_map
from .precision import full_precision

Offsets = Sequence[Sequence[int]]
Cosines = list[tuple[Index, torch.Tensor]]


class EmbeddedPatch:
    """The embedding of a batch of patches. What is derived from it is computed when a loss first asks for it, and once
    for all losses that look at the same patch; their sum then has one backward pass.

    Args:
        embedding: (B, D, *spatial).
        least_length: a shorter embedding has this length in cosines, see `embedding_affinities`.
    """

    def __init__(self, embedding: torch.Tensor, least_length: float = 0.0) -> None:
        self.least_length = least_length
        self.embedding = full_precision(embedding).contiguous()  # channel after channel, as all that follows wants it
        self._cosines: dict[tuple[tuple[int, ...], ...], Cosines] = {}

    @staticmethod
    def of(embedding: torch.Tensor | EmbeddedPatch, least_length: float = 0.0) -> EmbeddedPatch:
        """A patch as it is, or one around an embedding."""
        return embedding if isinstance(embedding, EmbeddedPatch) else EmbeddedPatch(embedding, least_length)

    @property
    def shape(self) -> torch.Size:
        """Shape of the embedding, (B, D, *spatial)."""
        return self.embedding.shape

    @cached_property
    def unit(self) -> torch.Tensor:
        """The embedding with vectors of length 1, or shorter where they are short, (B, D, *spatial)."""
        return unit_map(self.embedding, self.least_length)

    def cosines(self, offsets: Offsets) -> Cosines:
        """For each offset, the index of the voxels whose partner lies inside, and their cosines (B, *overlap).

        Args:
            offsets: in voxels, one number per spatial axis.

        Raises:
            ValueError: an offset has another number of axes than the embedding.
        """
        key = tuple(tuple(offset) for offset in offsets)
        if key not in self._cosines:
            pairs = [pair_slices(offset, self.shape[2:]) for offset in key]
            products = pair_products(self.unit, pairs)
            self._cosines[key] = [(here, cosines) for (here, _), cosines in zip(pairs, products, strict=True)]
        return self._cosines[key]
