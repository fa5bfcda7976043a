"""What runs a network gives the same affinities within rounding, and a shortened head the same ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from funlib.geometry import Coordinate

from pipeline.config import MalaConfig, NetworkConfig, ResidualUnetConfig, SectionUnetConfig
from pipeline.errors import UserError
from pipeline.networks import EmbeddingNetwork, build_engine, build_network, compact, peak_bytes
from pipeline.networks.mala import MalaNetwork
from pipeline.stages.inference import Predictor, read_box
from pipeline.volumes import Box

OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (2, 0, -3))
NETWORKS: dict[str, NetworkConfig] = {
    "section": SectionUnetConfig(sections=3, widths=(4, 6, 8), embedding_channels=12, background=True),
    "plane": ResidualUnetConfig(dimensions=2, widths=(4, 6), embedding_channels=12),
    "volume": ResidualUnetConfig(widths=(3, 4), embedding_channels=12),
    "mala": MalaConfig(widths=(2, 2, 2, 2), embedding_channels=12),
    "stem": SectionUnetConfig(sections=3, widths=(2, 3), stem=(2, 2, 2), embedding_channels=30),
}
BOXES = [Box(Coordinate(1, 3, 5), Coordinate(6, 13, 12)), Box(Coordinate(0, 0, 0), Coordinate(3, 20, 9))]


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> EmbeddingNetwork:
    torch.manual_seed(1)
    return build_network(NETWORKS[request.param]).eval()


def raw_of(network: EmbeddingNetwork, box: Box) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, read_box(network, box, OFFSETS).shape, dtype=np.uint8)


def test_a_shortened_head_gives_the_same_affinities(network: EmbeddingNetwork) -> None:
    shorter = compact(network)
    assert shorter.head_channels == math.prod(network.stem) * (network.head.in_channels + 1) < network.head_channels
    for box in BOXES:
        raw = raw_of(network, box)
        expected = Predictor(network, OFFSETS).affinities(raw, box)
        assert expected.std() > 0.001
        np.testing.assert_allclose(Predictor(shorter, OFFSETS).affinities(raw, box), expected, atol=1e-5)


def test_a_head_that_cannot_be_shortened_stays() -> None:
    network = build_network(SectionUnetConfig(sections=3, widths=(4, 6), embedding_channels=5))
    assert compact(network) is network


def test_sections_embedded_together_are_the_same_from_wherever_a_box_begins() -> None:
    network = build_network(NETWORKS["stem"]).eval()
    whole = Box(Coordinate(0, 0, 0), Coordinate(7, 14, 12))
    raw = np.random.default_rng(3).integers(0, 256, (40, 100, 100), dtype=np.uint8)
    origin = Coordinate(-10, -40, -40)  # the first voxel of raw, so that every box can be read

    def affinities(box: Box) -> np.ndarray:
        read = read_box(network, box, OFFSETS)
        part = raw[tuple(slice(b - o, e - o) for b, e, o in zip(read.begin, read.end, origin, strict=True))]
        assert part.shape == tuple(read.shape)
        return Predictor(network, OFFSETS).affinities(part, box)

    expected = affinities(whole)
    for begin, end in (((1, 0, 3), (2, 14, 12)), ((2, 5, 0), (7, 9, 7)), ((0, 1, 1), (3, 2, 2))):
        box = Box(Coordinate(begin), Coordinate(end))
        np.testing.assert_allclose(affinities(box), expected[:, *box.slices], atol=1e-5)


def test_openvino_agrees_with_torch(network: EmbeddingNetwork) -> None:
    pytest.importorskip("openvino")
    predictor = Predictor(network, OFFSETS, build_engine("openvino", network, None, threads=1))
    shapes = [*BOXES, BOXES[0]]  # another shape, and the first again
    for box in BOXES[:1] if isinstance(network, MalaNetwork) else shapes:  # that one reads far around any box
        raw = raw_of(network, box)
        np.testing.assert_allclose(
            predictor.affinities(raw, box), Predictor(network, OFFSETS).affinities(raw, box), atol=1e-5
        )


def test_what_an_engine_cannot_do_is_said_before_it_starts() -> None:
    pytest.importorskip("openvino")
    with pytest.raises(UserError, match=r"does not compute in float16.*predict\.autocast"):
        build_engine("openvino", build_network(NETWORKS["plane"]).eval(), torch.float16, threads=1)


def test_memory_is_counted_without_computing() -> None:
    network = build_network(NETWORKS["section"])
    small, large = (peak_bytes(network, (1, 3, extent, extent)) for extent in (256, 512))
    assert large == pytest.approx(4 * small, rel=0.01)
    channel = 512 * 512 * 4
    assert 8 * channel < large < 40 * channel  # the concatenation of the first level has 10 channels
    assert peak_bytes(network, (1, 3, 1 << 16, 1 << 16)) > 1 << 37, "an input of that size cannot be computed"
