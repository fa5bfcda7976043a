"""A network with fewer embedding channels whose embeddings have the same lengths and inner products."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch

from .base import EmbeddingNetwork


def compact(network: EmbeddingNetwork, offsets: Sequence[Sequence[int]] | None = None) -> EmbeddingNetwork:
    """A copy whose head gives no more channels than its input can fill; the network itself if there is nothing to gain.
    Plain affinities stay as they are.

    The head is a 1x1 convolution: from C features f it makes D-dimensional embeddings W (f, 1), which all lie in a
    space of C + 1 dimensions. With W = QR the embeddings R (f, 1) are the same but for the rotation Q, and affinities,
    which only know lengths and inner products, are equal. A student of 4 features and 16 channels needs 5. A head that
    gives the embeddings of S voxels of a stem is S such matrices, which one rotation of S (C + 1) dimensions serves.

    Args:
        network: any; its gradients are lost.
        offsets: of the affinities that are wanted; if all of them are plain ones, the embedding is left out.
    """
    head, voxels = network.head, math.prod(network.stem)
    unused = offsets is not None and all(network.is_plain(offset) for offset in offsets)
    wanted = 0 if unused else min(network.embedding_channels, voxels * (head.in_channels + 1))
    if wanted == network.embedding_channels:
        return network
    shorter = copy.deepcopy(network).requires_grad_(False)
    weight = head.weight.detach().flatten(1).double()  # (channels, C)
    with_bias = torch.cat((weight, head.bias.detach().double()[:, None]), dim=1)
    # channels as `stem.unfold` has them: the stem's sections, then D + K, then its rows and columns
    matrices = with_bias.reshape(network.stem[0], network.head_channels, -1, head.in_channels + 1).movedim(1, 0)
    embedding, plain = matrices.tensor_split([network.embedding_channels])
    if wanted:
        triangle = torch.linalg.qr(embedding.flatten(1), mode="r").R  # (D', S * (C + 1))
        plain = torch.cat((triangle.reshape(wanted, *matrices.shape[1:]), plain))
    rotated = plain.movedim(0, 1).flatten(0, 2).to(head.weight)
    new = shorter.head
    new.out_channels = len(rotated)
    new.weight = torch.nn.Parameter(
        rotated[:, :-1].reshape(len(rotated), *head.weight.shape[1:]).contiguous(), requires_grad=False
    )
    new.bias = torch.nn.Parameter(rotated[:, -1].contiguous(), requires_grad=False)
    return shorter
