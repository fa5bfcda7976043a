"""Balance between pairs of voxels that belong together and the far fewer that a boundary keeps apart."""

from __future__ import annotations

import torch

LEAST_SHARE = 0.02
"""The rarer class never counts as rarer than this, so that a handful of voxels cannot dominate a patch."""


def balanced_weights(target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Weights of pairs with which both classes of the known pairs count alike; 0 where the mask is 0.

    Args:
        target: (B, *overlap) in [0, 1], the degree to which a pair belongs together.
        mask: (B, *overlap), 1 where that is known. Default: everywhere.
    """
    weights = class_weights(target, together_share(target, mask))
    return weights if mask is None else mask * weights


def together_share(target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """The share of the known pairs that belongs together, within `LEAST_SHARE` of 0 and 1; arguments as above."""
    share = target.mean() if mask is None else (mask * target).sum() / mask.sum().clamp(min=1)
    return share.clamp(LEAST_SHARE, 1 - LEAST_SHARE)


def class_weights(target: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Weights of pairs, given the share of them that belongs together."""
    return target / (2 * share) + (1 - target) / (2 * (1 - share))
