"""Block-wise prediction equals that of the whole volume: no seams, whatever the blocks and wherever they begin."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from funlib.geometry import Coordinate

from pipeline.config import MalaConfig, ResidualUnetConfig, SectionUnetConfig, dump_config, parse_config
from pipeline.engine.blocks.grid import BlockGrid
from pipeline.errors import UserError
from pipeline.networks import EmbeddingNetwork, build_network, save_checkpoint
from pipeline.run import Run
from pipeline.stages.by_script import predict
from pipeline.stages.chosen_checkpoint import chosen_checkpoint
from pipeline.stages.inference import Predictor
from pipeline.stages.predict import PredictTask
from pipeline.volumes import Box, RunVolume, create_volume, crop, open_volume, position_of
from pipeline.volumes.volume import Volume

OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 4, -3))


def make_raw(container: Path, shape: tuple[int, int, int]) -> RunVolume:
    raw = create_volume(container, "raw", shape, "uint8", voxel_size=(40, 8, 8), chunks=(8, 16, 16))
    raw.write(raw.box, np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8))
    return raw


def make_network(config: SectionUnetConfig | MalaConfig | ResidualUnetConfig) -> EmbeddingNetwork:
    torch.manual_seed(3)
    return build_network(config).eval()


def affinities_of(network: EmbeddingNetwork, raw: RunVolume, box: Box) -> np.ndarray:
    predictor = Predictor(network, OFFSETS)
    return predictor.affinities(raw.read_mirrored(predictor.read_box(box)), box)


def quantised(network: EmbeddingNetwork, raw: RunVolume | Volume, box: Box) -> np.ndarray:
    predictor = Predictor(network, OFFSETS)
    return predictor.quantised(raw.read_mirrored(predictor.read_box(box)), box)


SECTION = SectionUnetConfig(sections=3, widths=(4, 6, 8), embedding_channels=4)
PLANE = ResidualUnetConfig(dimensions=2, widths=(4, 6), embedding_channels=4)
VOLUME = ResidualUnetConfig(widths=(3, 4), embedding_channels=4)


@pytest.mark.parametrize("config", [SECTION, PLANE, VOLUME], ids=["section", "plane", "volume"])
@pytest.mark.parametrize(
    ("begin", "block_size"), [((0, 0, 0), (5, 16, 16)), ((1, 3, 5), (3, 11, 16)), ((2, 7, 0), (10, 35, 7))]
)
def test_blocks_leave_no_seams(
    tmp_path: Path,
    config: SectionUnetConfig | ResidualUnetConfig,
    begin: tuple[int, int, int],
    block_size: tuple[int, int, int],
) -> None:
    """Among the blocks are some one voxel wide: 38 voxels from 5 on are 2 blocks of 16 and one of 1."""
    raw = make_raw(tmp_path, (10, 45, 38))
    network = make_network(config)
    whole = affinities_of(network, raw, raw.box)
    grid = BlockGrid(Box(Coordinate(begin), raw.shape), Coordinate(block_size), raw.voxel_size, Coordinate(0, 0, 0))
    for block in grid:
        box = grid.to_source(block.box)
        np.testing.assert_allclose(affinities_of(network, raw, box), crop(whole, box), atol=1e-5)


def test_valid_convolutions_leave_no_seams_either(tmp_path: Path) -> None:
    """The published 3D U-Net, whose input must be larger than its output by 14 and 106 voxels on each side."""
    raw = make_raw(tmp_path, (16, 110, 110))
    network = make_network(MalaConfig(widths=(2, 2, 2, 2), embedding_channels=4))
    wanted = Box(Coordinate(3, 10, 20), Coordinate(5, 13, 23))
    whole = affinities_of(network, raw, wanted)
    for z, y in [(3, 10), (4, 12)]:
        box = Box(Coordinate(z, y, 20), Coordinate(z + 1, y + 1, 23))
        part = crop(whole, box.relative_to(wanted))
        np.testing.assert_allclose(affinities_of(network, raw, box), part, atol=1e-5)


def test_affinities_are_cosines_between_the_right_voxels(tmp_path: Path) -> None:
    raw = make_raw(tmp_path, (8, 32, 32))
    network = make_network(SECTION)
    box = Box(Coordinate(2, 8, 8), Coordinate(4, 16, 16))
    affinities = affinities_of(network, raw, box)
    raw_box = network.input_box(box.grow((8, 8, 8), (8, 8, 8)))
    with torch.inference_mode():
        intensities = torch.from_numpy(raw.read_mirrored(raw_box).astype(np.float32) / 127.5 - 1)
        embedding = network(intensities[None, None])[0].numpy()
    origin = network.output_box(raw_box).begin
    for channel, offset in enumerate(OFFSETS):
        p = Coordinate(3, 9, 12)
        first, second = (embedding[(slice(None), *(q - origin))] for q in (p, p + Coordinate(offset)))
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert affinities[(channel, *(p - box.begin))] == pytest.approx(max(0.0, cosine), abs=1e-5)


def test_stored_affinities_are_rounded_to_the_nearest_of_256_levels(tmp_path: Path) -> None:
    raw, network = make_raw(tmp_path, (6, 20, 20)), make_network(SECTION)
    exact = affinities_of(network, raw, raw.box)
    assert len(np.unique(exact)) > 100
    np.testing.assert_array_equal(quantised(network, raw, raw.box), np.rint(exact * np.float32(255)))


def make_run(directory: Path, shape: tuple[int, int, int] = (10, 40, 38), **predict_section: object) -> Run:
    run = Run(
        parse_config(
            {
                "run_directory": str(directory),
                "volumes": {
                    "sources": {"a": {"kind": "phantom"}},
                    "segment": {"source": "a", "begin": [1, 3, 5]},
                },
                "student": {"network": dump_config(SECTION), "distillation": None},
                "predict": {"block_size": [4, 16, 16], "offsets": [list(o) for o in OFFSETS], **predict_section},
                "cluster": {"executor": "serial"},
            }
        )
    )
    make_raw(run.volume.file, shape)
    save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", make_network(SECTION), 1, {})
    return run


def test_the_stage_stores_what_the_whole_volume_gives(tmp_path: Path) -> None:
    run = make_run(tmp_path, device="cpu")
    assert predict(run)
    stored = open_volume(run.volume, "affinities")
    raw = run.open_raw("a")
    region = Box(Coordinate(1, 3, 5), raw.shape)
    whole = crop(quantised(make_network(SECTION), raw, raw.box), region)
    levels = np.abs(stored.read(stored.box).astype(int) - whole.astype(int))
    assert levels.max() <= 1
    assert (levels > 0).mean() < 1e-3  # only where rounding decides
    assert stored.offset == position_of(region.begin, raw.voxel_size, raw.offset)
    assert stored.array.shards == (4, 4, 16, 16)
    assert stored.array.attrs["offsets"] == [list(offset) for offset in OFFSETS]
    assert stored.array.dtype == np.uint8


def test_a_new_checkpoint_makes_the_affinities_stale(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert predict(run)
    torch.manual_seed(4)
    save_checkpoint(run.network_directory("student") / "checkpoint_0000002.pt", build_network(SECTION), 2, {})
    with pytest.raises(UserError, match=r"predict \(changed: predict.checkpoint\)"):
        predict(Run(run.config))


def test_missing_checkpoints_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.network_directory("student") / "checkpoint_0000001.pt").unlink()
    with pytest.raises(UserError, match="checkpoint"):
        predict(run)
    with pytest.raises(UserError, match=r"predict\.checkpoint"):
        predict(make_run(tmp_path, checkpoint="nowhere.pt"))
    assert not (run.volume / "affinities").file.exists()


def test_a_teacher_that_is_named_for_its_training_predicts_too(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    given = (run.network_directory("student") / "checkpoint_0000001.pt").replace(tmp_path / "given.pt")
    document = dump_config(run.config)
    document["teacher"] = {"network": dump_config(SECTION), "checkpoint": str(given)}
    document["predict"]["network"] = "teacher"
    teacher = parse_config(document)
    assert chosen_checkpoint(Run(teacher)) == given
    assert predict(Run(teacher))
    given.unlink()
    with pytest.raises(UserError, match=r"^teacher\.checkpoint: there is no checkpoint .*given\.pt"):
        chosen_checkpoint(Run(teacher))


def test_a_training_that_is_not_finished_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    PredictTask(make_run(tmp_path)).check()
    (told,) = caplog.messages
    assert re.fullmatch(
        r"the student has learnt 1 of [\d,]+ iterations; python workflows/01_distill.py \S+ goes on", told
    )


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    path = run.network_directory("student") / "checkpoint_0000002.pt"
    save_checkpoint(path, build_network(SectionUnetConfig(sections=5, widths=(4, 6))), 2, {})
    with pytest.raises(UserError, match="another network"):
        predict(run)


def test_a_volume_smaller_than_the_context_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="larger volume"):
        predict(make_run(tmp_path, shape=(10, 12, 38)))


def test_a_missing_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"predict\.device"):
        predict(make_run(tmp_path, device="cuda:77"))


def test_a_network_that_gives_no_numbers_fails_its_blocks_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As bytes, NaN would be 0: an affinity like any other."""
    run = make_run(tmp_path, device="cpu")
    network = make_network(SECTION)
    with torch.no_grad():
        network.head.weight.fill_(3e38)
    path = run.network_directory("student") / "checkpoint_0000002.pt"
    save_checkpoint(path, network, 2, {})
    assert not predict(run)
    assert f"{path}: in block 0, voxels (1, 3, 5) to" in caplog.text
    assert "embeddings or affinities are NaN or infinite" in caplog.text
