"""A network with fewer embedding channels whose embeddings have the same lengths and inner products."""

from __future__ import annotations

import copy

import torch

from .base import EmbeddingNetwork


def compact(network: EmbeddingNetwork) -> EmbeddingNetwork:
    """A copy whose head gives no more channels than its input can fill; the network itself if there is nothing to gain.

    The head is a 1x1 convolution: from C features f it makes D-dimensional embeddings W (f, 1), which all lie in a
    space of C + 1 dimensions. With W = QR the embeddings R (f, 1) are the same but for the rotation Q, and affinities,
    which only know lengths and inner products, are equal. A student of 4 features and 16 channels needs 5.

    Args:
        network: any; its gradients are lost.
    """
    head = network.head
    if head.in_channels + 1 >= head.out_channels:
        return network
    shorter = copy.deepcopy(network).requires_grad_(False)
    weight = head.weight.detach().flatten(1).double()  # (D, C)
    with_bias = torch.cat((weight, head.bias.detach().double()[:, None]), dim=1)
    triangle = torch.linalg.qr(with_bias, mode="r").R  # (C + 1, C + 1)
    new = shorter.head
    new.out_channels = len(triangle)
    new.weight = torch.nn.Parameter(
        triangle[:, :-1].to(head.weight).reshape(len(triangle), *head.weight.shape[1:]), requires_grad=False
    )
    new.bias = torch.nn.Parameter(triangle[:, -1].to(head.weight), requires_grad=False)
    return shorter
