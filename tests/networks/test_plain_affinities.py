"""Networks that give affinities themselves: the same ones from any tile, engine and shortened head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from funlib.geometry import Coordinate

from pipeline.config import MalaConfig, NetworkConfig, ResidualUnetConfig, SectionUnetConfig
from pipeline.errors import UserError
from pipeline.networks import EmbeddingNetwork, build_engine, build_network, compact, load_network, save_checkpoint
from pipeline.stages.inference import Predictor, read_box
from pipeline.volumes import Box, mirror_indices

NEAR = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
NETWORKS: dict[str, NetworkConfig] = {
    "in its place": SectionUnetConfig(sections=3, widths=(4, 6), embedding_channels=0, affinity_offsets=NEAR),
    "beside": SectionUnetConfig(sections=3, widths=(4, 6), embedding_channels=12, affinity_offsets=NEAR[1:]),
    "stem": SectionUnetConfig(
        sections=3, widths=(2, 3), stem=(2, 2, 2), embedding_channels=30, affinity_offsets=(*NEAR, (0, 0, -4))
    ),
    "volume": ResidualUnetConfig(widths=(3, 4), stem=(1, 2, 2), embedding_channels=0, affinity_offsets=NEAR),
    "mala": MalaConfig(widths=(2, 2), downsampling=((1, 2, 2),), embedding_channels=3, affinity_offsets=NEAR[:1]),
}
SHAPE = (7, 26, 22)


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> EmbeddingNetwork:
    torch.manual_seed(1)
    return build_network(NETWORKS[request.param]).eval()


def volume() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)


def affinities(predictor: Predictor, box: Box) -> np.ndarray:
    """Affinities of a box of the volume, mirrored beyond its faces."""
    read, raw = predictor.read_box(box), volume()
    for axis, extent in enumerate(SHAPE):
        raw = np.take(raw, mirror_indices(read.begin[axis], read.end[axis], extent), axis=axis)
    return predictor.affinities(np.ascontiguousarray(raw), box)


def test_tiles_leave_no_seam(network: EmbeddingNetwork) -> None:
    predictor = Predictor(network, NEAR)
    whole = affinities(predictor, Box.of_shape(SHAPE))
    assert whole.std() > 1e-4 and whole.min() >= 0 and whole.max() <= 1
    for begin, end in (((0, 0, 0), (4, 11, 22)), ((3, 5, 1), (7, 26, 9)), ((2, 13, 7), (3, 14, 8))):
        box = Box(Coordinate(begin), Coordinate(end))
        np.testing.assert_allclose(affinities(predictor, box), whole[:, *box.slices], atol=1e-5)


def test_a_plain_affinity_is_the_sigmoid_of_its_channel() -> None:
    network = build_network(NETWORKS["beside"]).eval()
    box = Box(Coordinate(1, 8, 8), Coordinate(3, 16, 16))
    read = read_box(network, box, NEAR)
    raw = np.random.default_rng(3).integers(0, 256, read.shape, dtype=np.uint8)
    found = Predictor(network, NEAR).affinities(raw, box)
    given = network(torch.from_numpy(raw.astype(np.float32) / 127.5 - 1)[None, None])[0]
    told = given[:, *box.relative_to(network.output_box(read)).slices]
    assert given.shape[0] == 12 + 2
    np.testing.assert_allclose(found[1:], torch.sigmoid(told[12:]).detach(), atol=1e-5)
    vectors = torch.nn.functional.normalize(given[:12], dim=0)
    z, y, x = box.relative_to(network.output_box(read)).slices
    before = (slice(z.start - 1, z.stop - 1), y, x)
    cosines = (vectors[:, z, y, x] * vectors[:, *before]).sum(0).clamp(0, 1)
    np.testing.assert_allclose(found[0], cosines.detach(), atol=1e-5)


def test_nothing_is_read_for_partners_that_are_not_looked_at() -> None:
    plain, beside = (build_network(NETWORKS[name]).eval() for name in ("in its place", "beside"))
    box = Box(Coordinate(0, 0, 0), Coordinate(4, 8, 8))
    assert read_box(plain, box, NEAR) == plain.input_box(box)
    assert read_box(beside, box, NEAR).shape[0] == plain.input_box(box).shape[0] + 1  # cosines along z


def test_a_pair_has_the_same_affinity_from_either_voxel(network: EmbeddingNetwork) -> None:
    """So that mirrored views of a volume can be compared."""
    opposite = [tuple(-step for step in offset) for offset in NEAR]
    box = Box(Coordinate(1, 3, 5), Coordinate(6, 13, 12))
    found = affinities(Predictor(network, opposite), box)
    for channel, offset in enumerate(opposite):
        shifted = Box(box.begin + Coordinate(offset), box.end + Coordinate(offset))
        expected = affinities(Predictor(network, NEAR), shifted)[channel]
        np.testing.assert_allclose(found[channel], expected, atol=1e-5)


def test_an_affinity_that_nothing_tells_is_refused() -> None:
    network = build_network(NETWORKS["in its place"]).eval()
    with pytest.raises(ValueError, match=r"neither plain affinities at \[0, 0, -2\] nor an embedding"):
        Predictor(network, [(0, 0, -2)])


def test_a_shortened_head_gives_the_same_affinities(network: EmbeddingNetwork) -> None:
    """With the offsets that are wanted, an embedding that none of them compares is left out."""
    box = Box(Coordinate(1, 3, 5), Coordinate(6, 13, 12))
    expected = affinities(Predictor(network, NEAR), box)
    for shorter in (compact(network), compact(network, NEAR)):
        assert shorter.head_channels <= network.head_channels
        np.testing.assert_allclose(affinities(Predictor(shorter, NEAR), box), expected, atol=1e-5)
    if set(NEAR) <= set(network.affinity_offsets):
        assert compact(network, NEAR).head_channels == len(network.affinity_offsets)


def test_openvino_agrees_with_torch(network: EmbeddingNetwork) -> None:
    pytest.importorskip("openvino")
    box = Box(Coordinate(1, 3, 5), Coordinate(6, 13, 12))
    shorter = compact(network, NEAR)
    compiled = Predictor(shorter, NEAR, build_engine("openvino", shorter, None, threads=1))
    np.testing.assert_allclose(affinities(compiled, box), affinities(Predictor(network, NEAR), box), atol=1e-5)


def test_a_checkpoint_knows_its_plain_affinities(network: EmbeddingNetwork, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_0000001.pt"
    save_checkpoint(path, network, 1, {})
    loaded, _ = load_network(path, network.config)
    assert loaded.affinity_offsets == network.affinity_offsets
    box = Box(Coordinate(0, 0, 0), Coordinate(2, 9, 9))
    np.testing.assert_array_equal(
        affinities(Predictor(loaded.eval(), NEAR), box), affinities(Predictor(network, NEAR), box)
    )
    other = network.config.model_copy(update={"affinity_offsets": ((0, 0, -9),)})
    with pytest.raises(UserError, match=r"affinity_offsets is .* in the checkpoint and "):
        load_network(path, other)
