"""A patch as a network embeds it, and what the losses derive from that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch

from ..offsets import Index, pair_slices
from .maps import crop, pair_products, unit_map
from .precision import full_precision

Offsets = Sequence[Sequence[int]]
Cosines = list[tuple[Index, torch.Tensor]]


class EmbeddedPatch:
    """What a network says of a batch of patches: embeddings, plain affinities, or both. What is derived from it is
    computed when a loss first asks for it, and once for all losses that look at the same patch; their sum then has one
    backward pass.

    Args:
        output: (B, D + K, *spatial), an embedding of D dimensions, which may be 0, and K logits of plain affinities.
        least_length: a shorter embedding has this length in cosines, see `embedding_affinities`.
        affinity_offsets: of the K plain affinities, in voxels.

    Attributes:
        embedding: (B, D, *spatial) in full precision.
    """

    def __init__(self, output: torch.Tensor, least_length: float = 0.0, affinity_offsets: Offsets = ()) -> None:
        self.least_length = least_length
        self.affinity_offsets = [tuple(offset) for offset in affinity_offsets]
        self.output = full_precision(output).contiguous()  # channel after channel, as all that follows wants it
        self._dimensions = output.shape[1] - len(self.affinity_offsets)
        self.embedding = self.output[:, : self._dimensions].contiguous() if self.affinity_offsets else self.output
        self._cosines: dict[tuple[tuple[int, ...], ...], Cosines] = {}

    @staticmethod
    def of(embedding: torch.Tensor | EmbeddedPatch, least_length: float = 0.0) -> EmbeddedPatch:
        """A patch as it is, or one around an embedding."""
        return embedding if isinstance(embedding, EmbeddedPatch) else EmbeddedPatch(embedding, least_length)

    def changed(
        self, change: Callable[[torch.Tensor], torch.Tensor], affinity_offsets: Offsets | None = None
    ) -> EmbeddedPatch:
        """The patch after a change of its voxels.

        Args:
            change: applied to (B, D + K, *spatial).
            affinity_offsets: of the plain affinities afterwards, where the axes are others.
        """
        offsets = self.affinity_offsets if affinity_offsets is None else affinity_offsets
        return EmbeddedPatch(change(self.output), self.least_length, offsets)

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
        if not key:
            return []
        if not self._dimensions:
            raise ValueError(f"there is no embedding to tell affinities at {list(key[0])} by, and no plain ones either")
        if key not in self._cosines:
            pairs = [pair_slices(offset, self.shape[2:]) for offset in key]
            products = pair_products(self.unit, pairs)
            self._cosines[key] = [(here, cosines) for (here, _), cosines in zip(pairs, products, strict=True)]
        return self._cosines[key]

    def logits(self, offset: Sequence[int]) -> torch.Tensor | None:
        """Logits (B, *spatial) of the plain affinities at an offset; None if the network has none there."""
        if tuple(offset) not in self.affinity_offsets:
            return None
        return self.output[:, self._dimensions + self.affinity_offsets.index(tuple(offset))]

    def affinities(self, offsets: Offsets) -> Cosines:
        """For each offset, the index of the voxels whose partner lies inside, and their affinities (B, *overlap): plain
        ones where the network has them, in [0, 1]; cosines elsewhere.

        Args:
            offsets: in voxels, one number per spatial axis.

        Raises:
            ValueError: an offset has another number of axes than the voxels, or nothing tells the affinities there.
        """
        cosines = iter(self.cosines([offset for offset in offsets if self.logits(offset) is None]))
        return [self._plain(offset) if self.logits(offset) is not None else next(cosines) for offset in offsets]

    def _plain(self, offset: Sequence[int]) -> tuple[Index, torch.Tensor]:
        here, _ = pair_slices(offset, self.shape[2:])
        logits = self.logits(offset)
        assert logits is not None
        return here, torch.sigmoid(crop(logits, here))
