"""The mean over turned raw equals what predicting each turned volume by itself gives, block by block."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from funlib.geometry import Coordinate

from pipeline.config import MalaConfig, ResidualUnetConfig, SectionUnetConfig, dump_config, parse_config
from pipeline.engine.plan import log_plan
from pipeline.errors import UserError
from pipeline.networks import EmbeddingNetwork, build_network, save_checkpoint
from pipeline.run import Run
from pipeline.stages.by_script import predict, prediction_stages
from pipeline.stages.inference import Predictor
from pipeline.stages.turned_prediction import TurnedPredictor, View, offsets_of, views_of
from pipeline.volumes import Box, create_volume, crop, open_volume
from pipeline.volumes.boxes import read_mirrored

OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (1, 4, -3))
SECTION = SectionUnetConfig(sections=3, widths=(4, 6, 8), embedding_channels=4)
PAIRS = SectionUnetConfig(sections=1, widths=(4, 6), embedding_channels=4, stem=(2, 1, 1))
PLANE = ResidualUnetConfig(dimensions=2, widths=(4, 6), embedding_channels=4)
VOLUME = ResidualUnetConfig(widths=(3, 4), embedding_channels=4, stem=(2, 2, 2), downsampling=((1, 2, 2),))
VALID = MalaConfig(widths=(3, 4), downsampling=((1, 2, 2),), embedding_channels=4)
RAW_SHAPE = (9, 26, 25)
"""Of the run: its region has two blocks along every axis, the last ones cut off by the face."""
NETWORKS: dict[str, Any] = {"section": SECTION, "pairs": PAIRS, "plane": PLANE, "volume": VOLUME, "valid": VALID}


def network_of(config: Any) -> EmbeddingNetwork:
    torch.manual_seed(3)
    return build_network(config).eval()


def raw_of(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def mirrored(raw: np.ndarray, box: Box) -> np.ndarray:
    return read_mirrored(lambda part: crop(raw, part), Coordinate(raw.shape), box)


def each_by_itself(network: EmbeddingNetwork, raw: np.ndarray, exchanged: tuple[bool, ...]) -> np.ndarray:
    """Every volume turned as an array of its own, predicted as a whole, turned back; then the mean."""
    results = []
    for exchange, *flips in itertools.product(exchanged, (False, True), (False, True), (False, True)):
        axes = tuple(axis for axis, flip in enumerate(flips) if flip)
        volume = np.flip(raw, axes)
        offsets = [[-step if flip else step for step, flip in zip(offset, flips, strict=True)] for offset in OFFSETS]
        if exchange:
            volume, offsets = volume.swapaxes(1, 2), [[z, x, y] for z, y, x in offsets]
        volume = np.ascontiguousarray(volume)
        predictor = Predictor(network, offsets)
        box = Box.of_shape(Coordinate(volume.shape))
        affinities = predictor.affinities(mirrored(volume, predictor.read_box(box)), box)
        affinities = affinities.swapaxes(2, 3) if exchange else affinities
        results.append(np.flip(affinities, tuple(axis + 1 for axis in axes)))
    return np.asarray(np.mean(results, axis=0))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("augment", "exchanged"), [("flips", (False,)), ("flips_transpose", (False, True))])
def test_the_mean_is_that_of_each_turned_volume_up_to_the_faces(
    name: str, augment: str, exchanged: tuple[bool, ...]
) -> None:
    """Extents are multiples of the pooling grid, so that a flipped array has the grid of a flipped view."""
    network, raw = network_of(NETWORKS[name]), raw_of((8, 24, 20))
    expected = each_by_itself(network, raw, exchanged)
    predictor = TurnedPredictor(network, OFFSETS, views_of(augment, network))
    for begin, end in (((0, 0, 0), (8, 24, 20)), ((1, 3, 5), (4, 20, 6)), ((7, 16, 11), (8, 24, 20))):
        box = Box(Coordinate(begin), Coordinate(end))
        found = predictor.affinities(mirrored(raw, predictor.read_box(box)), box)
        np.testing.assert_allclose(found, crop(expected, box), atol=2e-5)


def test_turning_the_volume_turns_the_affinities() -> None:
    """What sixteen views say together does not depend on how the volume lies; a network alone depends on it."""
    network, raw = network_of(SECTION), raw_of((6, 16, 16))
    offsets = OFFSETS[:3]
    box = Box.of_shape(Coordinate(raw.shape))
    turned = np.ascontiguousarray(raw[:, ::-1].swapaxes(1, 2))
    for views, same in ((views_of("flips_transpose", network), True), ([View()], False)):
        one, other = (
            TurnedPredictor(network, which, views) for which in (offsets, ((-1, 0, 0), (0, 0, 1), (0, -1, 0)))
        )
        straight = one.affinities(mirrored(raw, one.read_box(box)), box)
        back = other.affinities(mirrored(turned, other.read_box(box)), box).swapaxes(2, 3)[:, :, ::-1]
        assert np.allclose(straight, back, atol=2e-5) is same


def make_run(directory: Path, **settings: object) -> Run:
    document = {
        "run_directory": str(directory),
        "volumes": {"sources": {"a": {"kind": "phantom"}}, "segment": {"source": "a", "begin": [1, 3, 5]}},
        "student": {"network": dump_config(SECTION), "distillation": None},
        "predict": {"block_size": [4, 16, 16], "device": "cpu", "tile_size": [4, 16, 16], **settings},
        "cluster": {"executor": "serial"},
    }
    run = Run(parse_config(document))
    if not run.volume.file.exists():
        raw = create_volume(run.volume, "raw", RAW_SHAPE, "uint8", voxel_size=(40, 8, 8), chunks=(8, 16, 16))
        raw.write(raw.box, raw_of(RAW_SHAPE))
        save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", network_of(SECTION), 1, {})
    return run


def test_the_stage_is_another_one_and_its_blocks_leave_no_seams(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert predict(make_run(tmp_path))
    plain = open_volume(make_run(tmp_path).volume, "affinities")
    before = plain.read(plain.box)
    augmented = make_run(tmp_path, augment=16)
    assert augmented.config.predict.augment == "flips_transpose"
    with pytest.raises(UserError, match=r"predict \(changed: predict.augment\)"):
        predict(augmented)
    with caplog.at_level(logging.INFO):
        log_plan(augmented, prediction_stages(augmented))
    assert "16 of the network over each block, in 16 times the time" in caplog.text
    assert predict(augmented, overwrite=True)
    stored = open_volume(augmented.volume, "affinities")
    network, raw = network_of(SECTION), augmented.open_raw("a")
    predictor = TurnedPredictor(network, augmented.config.predict.offsets, views_of("flips_transpose", network))
    whole = predictor.quantised(raw.read_mirrored(predictor.read_box(raw.box)), raw.box)
    after = stored.read(stored.box)
    levels = np.abs(after.astype(int) - crop(whole, Box(Coordinate(1, 3, 5), raw.shape)).astype(int))
    assert levels.max() <= 1 and (levels > 0).mean() < 1e-3
    assert np.abs(after.astype(int) - before.astype(int)).max() > 10


def test_networks_of_single_sections_are_not_asked_twice_the_same() -> None:
    assert [len(views_of(name, network_of(PLANE))) for name in ("none", "flips", "flips_transpose")] == [1, 4, 8]
    assert [len(views_of(name, network_of(PAIRS))) for name in ("none", "flips", "flips_transpose")] == [1, 8, 16]
    assert [len(views_of(name, network_of(SECTION))) for name in ("none", "flips", "flips_transpose")] == [1, 8, 16]


@pytest.mark.parametrize(
    ("offset", "augment", "works"),
    [
        ((0, 0, -4), "flips_transpose", "flips"),
        ((0, -2, -4), "flips_transpose", "none"),
        ((0, -2, -4), "flips", "none"),
    ],
)
def test_where_a_view_lacks_an_affinity_the_message_names_views_that_do_not(
    offset: tuple[int, int, int], augment: str, works: str
) -> None:
    network = network_of(SectionUnetConfig(sections=1, widths=(4, 6), embedding_channels=0, affinity_offsets=(offset,)))
    with pytest.raises(UserError, match=f"network has no affinity; take {works}$"):
        offsets_of(augment, network, (offset,))
    assert offsets_of(works, network, (offset,))
