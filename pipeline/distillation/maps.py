"""Maps of unit vectors and their inner products, worked on a few channels at a time.

Whole products would be temporary tensors of the size of the embedding, several per offset. Making and reading them
takes longer than the arithmetic on a CPU, whose cache holds a few channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..offsets import Index
from .precision import SMALLEST_NORM, full_precision

BLOCK = {"cpu": 1 << 18, "cuda": 1 << 24}
"""About so many elements are worked on at a time. A GPU has no such cache and prefers few large steps."""

Pair = tuple[Index, Index]


def unit_map(embedding: torch.Tensor, least_length: float = 0.0) -> torch.Tensor:
    """Embeddings divided by their length, through which gradients flow; zero vectors stay zero.

    Args:
        embedding: (B, D, *spatial).
        least_length: shorter embeddings are divided by it and stay shorter than a unit.

    Returns:
        (B, D, *spatial) in full precision, contiguous.
    """
    unit: torch.Tensor = _UnitMap.apply(full_precision(embedding), max(SMALLEST_NORM, least_length))  # type: ignore[no-untyped-call]
    return unit


def pair_products(vectors: torch.Tensor, pairs: Sequence[Pair]) -> tuple[torch.Tensor, ...]:
    """Inner products of the vectors (B, D, *spatial) at pairs of places: (B, *overlap) for each pair of indices."""
    products: tuple[torch.Tensor, ...] = _PairProducts.apply(vectors, pairs)  # type: ignore[no-untyped-call]
    return products


def crop(tensor: torch.Tensor, index: Index) -> torch.Tensor:
    """The part of (..., *spatial) that an index of the spatial axes selects."""
    ellipsis_first: tuple[Any, ...] = (..., *index)
    return tensor[ellipsis_first]


class _UnitMap(torch.autograd.Function):
    """Autograd's own formula would keep and make several maps of the size of the embedding."""

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor, least: float) -> torch.Tensor:
        vectors = vectors.contiguous()
        squares = torch.zeros_like(vectors[:, 0])
        for (block,) in _blocks(vectors):
            _add_inner_products(squares, block, block)
        ctx.short = squares < least**2
        scale = squares.clamp_(min=least**2).rsqrt_()
        unit = vectors * scale.unsqueeze(1)
        ctx.save_for_backward(unit, scale)
        return unit

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,), (unit, scale) = gradients, ctx.saved_tensors
        along = torch.zeros_like(scale)
        for blocks in _blocks(unit, gradient):
            _add_inner_products(along, *blocks)
        along.mul_(scale).masked_fill_(ctx.short, 0)  # below the least length the scale is a constant
        total = gradient * scale.unsqueeze(1)
        for to_total, of_unit in _blocks(total, unit):
            to_total.addcmul_(of_unit, along.unsqueeze(1), value=-1)
        return total, None


class _PairProducts(torch.autograd.Function):
    """Autograd's own backward would make a zero tensor of the size of the embedding for every slice."""

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor, pairs: Sequence[Pair]) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(vectors)
        ctx.pairs = pairs
        products = tuple(torch.zeros_like(crop(vectors[:, 0], here)) for here, _ in pairs)
        for (block,) in _blocks(vectors):
            for product, (here, there) in zip(products, pairs, strict=True):
                _add_inner_products(product, crop(block, here), crop(block, there))
        return products

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (vectors,) = ctx.saved_tensors
        total = torch.zeros_like(vectors)
        for to_total, block in _blocks(total, vectors):
            for (here, there), gradient in zip(ctx.pairs, gradients, strict=True):
                per_channel = gradient.unsqueeze(1)
                crop(to_total, here).addcmul_(crop(block, there), per_channel)
                crop(to_total, there).addcmul_(crop(block, here), per_channel)
        return total, None


def _blocks(*maps: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """The same few channels of several maps (B, D, *spatial)."""
    block = BLOCK.get(maps[0].device.type, BLOCK["cuda"])
    at_once = max(1, block * maps[0].shape[1] // max(1, maps[0].numel()))
    return zip(*(one.split(at_once, dim=1) for one in maps), strict=True)


def _add_inner_products(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Add the inner products along the channels of (B, D, *spatial) to (B, *spatial)."""
    if a.shape[1] == 1:
        total.addcmul_(a.squeeze(1), b.squeeze(1))
    else:
        total.add_((a * b).sum(1))
