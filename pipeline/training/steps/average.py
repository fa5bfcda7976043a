"""The running average of a network's weights over the steps of its training (Polyak averaging, exponential)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from ...networks import EmbeddingNetwork

WARM_UP = 10
"""After i steps the average keeps no more than (1 + i) / (`WARM_UP` + i) of itself: it soon forgets how it began."""


class WeightAverage:
    """The average of the weights of a network, in full precision, beside the weights that learn.

    Args:
        network: that learns; on its device.
        kept: what the average keeps of itself at each step, below 1.
    """

    def __init__(self, network: EmbeddingNetwork, kept: float) -> None:
        self._network = network
        self._kept = kept
        self.weights = _copies(network.state_dict())

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Take in the weights of the network after a step, the first being 0."""
        kept = min(self._kept, (1 + iteration) / (WARM_UP + iteration))
        for name, weight in self._network.state_dict().items():
            self.weights[name].lerp_(weight, 1 - kept)

    @contextmanager
    def in_place(self) -> Iterator[Mapping[str, torch.Tensor]]:
        """The network has the average's weights within this context; gives those that learn, which it has afterwards
        again, to the bit.
        """
        learning = _copies(self._network.state_dict())
        self._network.load_state_dict(self.weights)
        try:
            yield learning
        finally:
            self._network.load_state_dict(learning)

    def restore(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Continue from the average that a checkpoint holds."""
        for name, weight in weights.items():
            self.weights[name].copy_(weight)


def _copies(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in weights.items()}
