"""Pairs of background voxels may count less: a wide background must not drown the boundaries."""

from __future__ import annotations

import pytest
import torch

from pipeline.distillation import SupervisedAffinityLoss

OFFSETS = ((0, -1), (-3, 0))


def example() -> tuple[torch.Tensor, ...]:
    """Embedding, targets, mask and labels of two images with two touching objects each on a background."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros((2, 12, 14), dtype=torch.int64)
    labels[:, 2:8, 3:6], labels[:, 2:8, 6:9] = 1, 2
    embedding = torch.randn((2, 5, 12, 14), generator=generator)
    affinities, mask = torch.zeros((2, 2, 2, 12, 14))
    for k, (y, x) in enumerate(OFFSETS):
        here = (slice(None), slice(-y, None), slice(-x, None))
        there = (slice(None), slice(0, 12 + y), slice(0, 14 + x))
        affinities[:, k][here] = ((labels[here] == labels[there]) & (labels[here] > 0)).float()
        mask[:, k][here] = (torch.rand(labels[here].shape, generator=generator) < 0.9).float()
    return embedding, affinities, mask, labels


def test_the_weight_is_that_of_the_pairs() -> None:
    """The loss equals that with the weights put into the mask pair by pair."""
    embedding, affinities, mask, labels = example()
    weighted = mask.clone()
    for image in range(2):
        for k, (dy, dx) in enumerate(OFFSETS):
            for y in range(-dy, 12):
                for x in range(-dx, 14):
                    if labels[image, y, x] == 0 and labels[image, y + dy, x + dx] == 0:
                        weighted[image, k, y, x] *= 0.1
    expected = SupervisedAffinityLoss(OFFSETS)(embedding, affinities, weighted)
    found = SupervisedAffinityLoss(OFFSETS, background_weight=0.1)(embedding, affinities, mask, labels)
    assert found == pytest.approx(float(expected))


def test_a_boundary_missed_costs_more_where_the_background_counts_less() -> None:
    embedding, affinities, mask, labels = example()
    joined = torch.zeros_like(embedding)
    joined[:, 0] = (labels > 0).float()  # both objects look alike
    joined[:, 1:] = embedding[:, 1:] * (labels == 0)[:, None]
    full = SupervisedAffinityLoss(OFFSETS)(joined, affinities, mask)
    small = SupervisedAffinityLoss(OFFSETS, background_weight=0.01)(joined, affinities, mask, labels)
    assert small > 1.3 * full
