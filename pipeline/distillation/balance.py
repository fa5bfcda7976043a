"""Equal say for pairs of voxels that belong together and for the far fewer that a boundary keeps apart."""

from __future__ import annotations

import torch

LEAST_SHARE = 0.02
"""The rarer class never counts as rarer than this, so that a handful of voxels cannot dominate a patch."""


def balanced_weights(target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Weights that give both classes of the known pairs the same say, 0 where the mask is 0.

    Args:
        target: (B, *overlap) in [0, 1], the degree to which a pair belongs together.
        mask: (B, *overlap), 1 where that is known. Default: everywhere.
    """
    together = target.mean() if mask is None else (mask * target).sum() / mask.sum().clamp(min=1)
    together = together.clamp(LEAST_SHARE, 1 - LEAST_SHARE)
    weights = target / (2 * together) + (1 - target) / (2 * (1 - together))
    return weights if mask is None else mask * weights
