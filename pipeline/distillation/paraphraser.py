"""The paraphraser: says what a layer of the teacher says in as many channels as the student has."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

SLOPE = 0.1
"""Of the leaky ReLU."""

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class Paraphraser(nn.Module):
    """An autoencoder of one layer of the teacher (factor transfer, Kim et al., NeurIPS 2018, as Graph Flow uses it).

    Three convolutions C → C → c → c of width 3 with leaky ReLU, and three transposed ones back, the last without an
    activation, since features may be negative. It learns to reconstruct the frozen teacher's features and is then
    frozen itself; the student is compared with what lies in the middle.

    Args:
        channels: C, of the teacher's layer.
        student_channels: c, of the student's layer.
        dimensions: 2 for images, 3 for volumes.

    Attributes:
        trained: whether the training is over; saved in the `state_dict`.
    """

    trained: torch.Tensor

    def __init__(self, channels: int, student_channels: int, dimensions: int = 3) -> None:
        super().__init__()
        down = (channels, channels, student_channels, student_channels)
        self.encoder = _chain(CONVOLUTION[dimensions], down)
        self.decoder = _chain(TRANSPOSED[dimensions], down[::-1])[:-1]
        self.register_buffer("trained", torch.tensor(False))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The teacher's features in the student's channels, (B, C, *spatial) to (B, c, *spatial).

        Raises:
            RuntimeError: it has not been trained, so that its output would mean nothing.
        """
        if not self.trained:
            raise RuntimeError("this paraphraser is untrained; train it to reconstruct the teacher's features first")
        paraphrased: torch.Tensor = self.encoder(features)
        return paraphrased

    def reconstruction_loss(self, features: torch.Tensor) -> torch.Tensor:
        """Mean squared difference of the teacher's features (B, C, *spatial), which get no gradient, and what the
        paraphraser makes of them and back.
        """
        features = features.detach()
        return F.mse_loss(self.decoder(self.encoder(features)), features)

    def freeze(self) -> None:
        """End the training: from now on it paraphrases, and changes no more."""
        self.trained.fill_(True)
        self.requires_grad_(False)


def _chain(convolution: type[nn.Module], channels: tuple[int, ...]) -> nn.Sequential:
    """Convolutions between the channels given, each with a leaky ReLU."""
    chain: list[nn.Module] = []
    for before, behind in pairwise(channels):
        chain += [convolution(before, behind, kernel_size=3, padding=1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*chain)
