"""Norms and cosines in float32, also under autocast: half precision would lose the differences that are distilled."""

from __future__ import annotations

import torch

SMALLEST_NORM = 1e-8


def full_precision(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as float32; float64 stays float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def no_autocast(tensor: torch.Tensor) -> torch.autocast:
    """A context in which products of float32 tensors stay float32."""
    return torch.autocast(tensor.device.type, enabled=False)


def unit_vectors(vectors: torch.Tensor, axis: int, least_length: float = 0.0) -> torch.Tensor:
    """Vectors along an axis divided by their length, through which gradients flow; zero vectors stay zero.

    Those shorter than `least_length` are divided by it and stay shorter than a unit.
    """
    least = max(SMALLEST_NORM, least_length)
    return vectors * vectors.square().sum(axis, keepdim=True).clamp(min=least**2).rsqrt()
