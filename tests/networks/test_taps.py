"""Taps say truly where their features lie and what they see; intermediate layers are compared with labels by it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from funlib.geometry import Coordinate

from pipeline.networks import EmbeddingNetwork, build_network

CASES: dict[str, dict[str, Any]] = {
    "mala": {"widths": [2, 3, 4], "downsampling": [[1, 3, 3], [1, 3, 3]]},
    "section_unet": {"sections": 3, "widths": [2, 3, 4]},
    "residual_unet": {"widths": [2, 3, 4]},
}
STEMS: dict[str, dict[str, Any]] = {
    "section_unet": {"sections": 3, "widths": [2, 3], "stem": [2, 2, 2]},
    "residual_unet": {"widths": [2, 3], "stem": [1, 2, 2]},
}


def linear(name: str, settings: dict[str, Any]) -> EmbeddingNetwork:
    """A network in which every input voxel within reach moves a feature: positive weights, average instead of max."""
    network = build_network(name, **settings)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.05)
    network.double()
    for pools in [module for module in network.modules() if isinstance(module, torch.nn.ModuleList)]:
        for index, pool in enumerate(pools):
            if isinstance(pool, torch.nn.MaxPool3d):
                pools[index] = torch.nn.AvgPool3d(pool.kernel_size)
            if isinstance(pool, torch.nn.MaxPool2d):
                pools[index] = torch.nn.AvgPool2d(pool.kernel_size)
    return network


def seen(features: torch.Tensor, feature: tuple[int, int, int], raw: torch.Tensor) -> torch.Tensor:
    """Indices (N, 3) of the input voxels that move a feature."""
    (gradient,) = torch.autograd.grad(features[0, :, *feature].sum(), raw, retain_graph=True)
    return gradient[0, 0].nonzero()


@pytest.mark.parametrize(("name", "settings"), [*CASES.items(), *STEMS.items()])
def test_field_of_view_and_place_of_every_tap(name: str, settings: dict[str, Any]) -> None:
    network = linear(name, settings)
    shape = network.input_shape((4, 12, 12))
    raw = torch.rand(1, 1, *shape, dtype=torch.float64, requires_grad=True)
    _, features = network.forward_with_taps(raw)
    assert set(features) == {tap.name for tap in network.taps}
    for tap in network.taps:
        size = features[tap.name].shape
        assert size[1] == tap.channels
        middle = size[4] // 2
        widest = 0
        for x in range(middle, middle + network.grid[2] // tap.downsampling[2]):
            voxels = seen(features[tap.name], (size[2] // 2, size[3] // 2, x), raw)
            low, high = voxels.min(0).values.tolist(), voxels.max(0).values.tolist()
            assert high[0] - low[0] + 1 == tap.field_of_view[0]
            widest = max(widest, high[2] - low[2] + 1)
            begin = tap.begin[2] + x * tap.downsampling[2]
            assert low[2] <= begin and begin + tap.downsampling[2] - 1 <= high[2]
            z = tap.begin[0] + size[2] // 2 * tap.downsampling[0]
            assert z - low[0] == high[0] - (z + tap.downsampling[0] - 1)
        assert widest == tap.field_of_view[2]


@pytest.mark.parametrize("name", CASES)
def test_finest_decoder_lies_on_the_embedding(name: str) -> None:
    network = build_network(name, **CASES[name])
    shape = network.input_shape((4, 20, 20))
    embedding, features = network.forward_with_taps(torch.randn(2, 1, *shape))
    assert features["decoder_0"].shape[2:] == embedding.shape[2:]
    tap = next(tap for tap in network.taps if tap.name == "decoder_0")
    assert tap.begin * 2 == shape - Coordinate(embedding.shape[2:])
