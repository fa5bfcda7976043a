"""Block by block, every network embeds what it would embed of the whole volume."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from funlib.geometry import Coordinate

from pipeline.networks import EmbeddingNetwork, build_network
from pipeline.networks.section_unet import PIXELS_AT_ONCE
from pipeline.volumes import Box, mirror_indices

CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {  # the network's name up to a space
    # the published pooling, one level fewer: the tiny network of the publication needs a quarter of a million voxels
    "mala": ({"widths": [3, 4, 5], "downsampling": [[1, 3, 3], [1, 3, 3]]}, (9, 27, 25)),
    "mala_tiny": ({"widths": [2, 3, 4, 5], "decoder_widths": [2, 4, 3], "downsampling": [[1, 2, 2]] * 3}, (7, 20, 21)),
    "section_unet": ({"widths": [3, 4, 5, 6]}, (9, 45, 43)),
    "residual_unet": ({"widths": [3, 4]}, (9, 28, 25)),
    "section_unet stem": ({"widths": [3, 4, 5], "stem": [2, 2, 2], "activation": "relu"}, (9, 45, 43)),
    "residual_unet stem": ({"widths": [3, 4], "stem": [3, 2, 2]}, (14, 28, 25)),
}
PLANE_CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {  # the network's name up to a space
    "residual_unet": ({"dimensions": 2, "widths": [4, 5, 6, 7]}, (70, 61)),
    "odd_pooling": ({"dimensions": 2, "widths": [4, 5, 6], "downsampling": [[1, 3, 2], [1, 2, 3]]}, (50, 61)),
    "stem": ({"dimensions": 2, "widths": [4, 5], "stem": 4}, (50, 61)),
}


def network_of(case: str, **settings: Any) -> EmbeddingNetwork:
    return build_network(case.partition(" ")[0], **settings).eval()


def embed_box(network: EmbeddingNetwork, raw: np.ndarray, box: Box) -> np.ndarray:
    """The embedding (D, *box) of a box of a volume, mirrored beyond its faces."""
    input_box = network.input_box(box)
    assert input_box.begin % network.grid == input_box.begin * 0
    data = raw
    for axis, (begin, end, extent) in enumerate(zip(input_box.begin, input_box.end, raw.shape, strict=True)):
        data = np.take(data, mirror_indices(begin, end, extent), axis=axis)
    with torch.inference_mode():
        embedding = network(torch.from_numpy(np.ascontiguousarray(data))[None, None])[0].numpy()
    output_box = network.output_box(input_box)
    assert embedding.shape[1:] == tuple(output_box.shape)
    assert output_box.contains(box)
    result: np.ndarray = embedding[(slice(None), *box.relative_to(output_box).slices)]
    return result


def tiles(shape: tuple[int, ...], size: tuple[int, ...], first: tuple[int, ...]) -> list[Box]:
    """Boxes of `size` that cover a volume, the grid of them beginning at `first`, cut at the volume's faces."""
    begins = [range(start, extent, step) for start, extent, step in zip(first, shape, size, strict=True)]
    boxes = [
        Box(Coordinate(b), Coordinate(b) + Coordinate(size)).intersect(Box.of_shape(shape)) for b in product(*begins)
    ]
    return [box for box in boxes if box.size > 0]


def assert_tiles_equal_whole(
    network: EmbeddingNetwork, shape: tuple[int, ...], size: tuple[int, ...], first: tuple[int, ...]
) -> None:
    """Compare tiles with the whole; weights are spread so that every voxel of context matters."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    raw = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    whole = embed_box(network, raw, Box.of_shape(shape))
    scale = np.abs(whole).max()
    for box in tiles(shape, size, first):
        part = embed_box(network, raw, box)
        np.testing.assert_allclose(part / scale, whole[(slice(None), *box.slices)] / scale, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("size", "first"),
    [((9, 16, 16), (0, 0, 0)), ((5, 13, 22), (0, 0, 0)), ((9, 24, 24), (-3, -7, -5)), ((8, 24, 24), (-7, -23, 0))],
    ids=["aligned", "odd", "shifted", "one voxel wide"],
)
def test_tiles_leave_no_seam(name: str, size: tuple[int, ...], first: tuple[int, ...]) -> None:
    settings, shape = CASES[name]
    assert_tiles_equal_whole(network_of(name, embedding_channels=4, **settings), shape, size, first)


@pytest.mark.parametrize("name", PLANE_CASES)
@pytest.mark.parametrize(("size", "first"), [((32, 32), (0, 0)), ((29, 60), (-7, 0)), ((23, 31), (-22, -30))])
def test_tiles_of_images_leave_no_seam(name: str, size: tuple[int, ...], first: tuple[int, ...]) -> None:
    settings, shape = PLANE_CASES[name]
    assert_tiles_equal_whole(
        build_network("residual_unet", embedding_channels=4, **settings).eval(), shape, size, first
    )


def test_published_student_embeds_one_voxel_as_in_its_neighbourhood() -> None:
    network = build_network("mala_tiny").eval()
    raw = np.random.default_rng(0).uniform(-1, 1, (6, 40, 40)).astype(np.float32)
    around = embed_box(network, raw, Box(Coordinate(0, 5, 5), Coordinate(2, 34, 34)))
    voxel = embed_box(network, raw, Box(Coordinate(1, 30, 5), Coordinate(2, 31, 6)))
    np.testing.assert_allclose(voxel[:, 0, 0, 0], around[:, 1, 25, 0], atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_context_is_needed(name: str) -> None:
    """A claimed context that is larger than what the network sees would waste computation; check it is not absurd."""
    network = network_of(name, **CASES[name][0])
    views = [tap.field_of_view for tap in network.taps if tap.name == "decoder_0"]
    assert all(2 * c + 1 <= view + 2 * g for c, view, g in zip(network.context, views[0], network.grid, strict=True))


def test_sections_in_parts_equal_sections_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network("section_unet", widths=[4, 6]).eval()
    raw = torch.randn(2, 1, 15, 32, 32)
    with torch.no_grad():
        at_once = network(raw)
        monkeypatch.setitem(PIXELS_AT_ONCE, "cpu", 3000)
        in_parts = network(raw)
    torch.testing.assert_close(in_parts, at_once, atol=1e-6, rtol=0)
    torch.testing.assert_close(network(raw), at_once, atol=1e-6, rtol=0)  # with gradients


@pytest.mark.parametrize("case", ["section_unet stem", "residual_unet stem"])
def test_stem_gives_every_voxel_an_embedding_of_its_own(case: str) -> None:
    network = network_of(case, **CASES[case][0])
    shape = network.input_shape((6, 20, 20))
    raw = torch.randn(1, 1, *shape, requires_grad=True)
    embedding = network(raw)[0]
    z, y, x = (extent // 2 for extent in embedding.shape[1:])
    for dz, dy, dx in product(range(2), repeat=3):
        own = embedding[:, z + dz, y + dy, x + dx]
        others = [
            embedding[:, z + a, y + b, x + c] for a, b, c in product(range(2), repeat=3) if (a, b, c) < (dz, dy, dx)
        ]
        assert all(not torch.allclose(own, other, atol=1e-4) for other in others)


def test_section_windows_keep_batch_and_depth_apart() -> None:
    network = build_network("section_unet", sections=3, widths=[4, 6]).eval()
    raw = torch.randn(2, 1, 6, 16, 16)
    whole = network(raw)
    for image, section in product(range(2), range(4)):
        single = network(raw[image : image + 1, :, section : section + 3])
        torch.testing.assert_close(whole[image, :, section], single[0, :, 0], atol=1e-6, rtol=0)
