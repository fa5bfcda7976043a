"""Eight bits: made once, part of the key, near the network that they are of, and the same whoever computes."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import ResidualUnetConfig, SectionUnetConfig, dump_config, parse_config
from pipeline.engine.tracking.progress import Progress, progress_of
from pipeline.errors import UserError
from pipeline.networks import build_network, eight_bits, save_checkpoint
from pipeline.run import Run
from pipeline.stages import quantise
from pipeline.stages.by_script import predict, prediction_stages
from pipeline.stages.predict import PredictTask
from pipeline.volumes import create_volume, open_volume

pytest.importorskip("nncf")
pytest.importorskip("openvino")
NETWORKS: dict[str, Any] = {
    "sections": SectionUnetConfig(sections=3, widths=(6, 8), embedding_channels=4),
    "folded": SectionUnetConfig(sections=3, widths=(8, 8), embedding_channels=4, stem=(1, 2, 2), activation="relu"),
    "volume": ResidualUnetConfig(widths=(4, 6), embedding_channels=4),
}


def make_run(
    directory: Path, name: str = "sections", cluster: dict[str, object] | None = None, **settings: object
) -> Run:
    document = {
        "run_directory": str(directory),
        "volumes": {
            "sources": {"a": {"kind": "phantom"}},
            "train": [{"source": "a", "z_share": [0.0, 0.6]}],
            "segment": {"source": "a"},
        },
        "student": {"network": dump_config(NETWORKS[name]), "distillation": None},
        "predict": {"block_size": [6, 32, 32], "tile_size": [6, 32, 32], "precision": "int8", **settings},
        "cluster": cluster or {"executor": "serial"},
    }
    run = Run(parse_config(document))
    if not run.volume.file.exists():
        smooth = np.random.default_rng(1).integers(0, 220, (12, 9, 10), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        raw = create_volume(run.volume, "raw", smooth.shape, "uint8", voxel_size=(40, 8, 8), chunks=(6, 32, 32))
        raw.write(raw.box, smooth + np.random.default_rng(2).integers(0, 30, smooth.shape, dtype=np.uint8))
        save(run, 1, name)
    return run


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring takes most of the time, and four places say enough of so small a volume."""
    monkeypatch.setattr(quantise, "SAMPLES", 4)


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is predicted in eight bits; to be copied."""
    run = make_run(tmp_path_factory.mktemp("predicted") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantise, "SAMPLES", 4)
        assert predict(run)
    return run.directory


def save(run: Run, iteration: int, name: str = "sections") -> None:
    torch.manual_seed(iteration)
    network = build_network(NETWORKS[name])
    save_checkpoint(run.network_directory("student") / f"checkpoint_{iteration:07d}.pt", network, iteration, {})


def affinities(run: Run) -> np.ndarray:
    stored = open_volume(run.volume, "affinities")
    return stored.read(stored.box)


@pytest.mark.parametrize("name", ["folded", pytest.param("volume", marks=pytest.mark.slow)])
def test_affinities_in_eight_bits_are_near_those_in_float(tmp_path: Path, name: str) -> None:
    rounded, exact = make_run(tmp_path / "int8", name), make_run(tmp_path / "float", name, precision="float32")
    assert predict(rounded) and predict(exact)
    apart = np.abs(affinities(rounded).astype(int) - affinities(exact).astype(int))
    assert 0 < apart.mean() < 6, "of 255 levels"
    assert np.corrcoef(affinities(rounded).ravel(), affinities(exact).ravel())[0, 1] > 0.99


def test_workers_and_tiles_change_no_voxel(tmp_path: Path, predicted: Path) -> None:
    alone = make_run(predicted)
    local = make_run(tmp_path / "local", cluster={"executor": "local", "workers": 2}, tile_size=[12, 64, 64])
    for suffix in (".xml", ".bin", ".json"):  # the same rounding, since measuring it again may round otherwise
        file = local.network_directory("student") / f"int8{suffix}"
        file.write_bytes((alone.network_directory("student") / f"int8{suffix}").read_bytes())
    assert predict(local)
    np.testing.assert_array_equal(affinities(alone), affinities(local))


def test_it_is_made_once_for_a_checkpoint(tmp_path: Path, predicted: Path) -> None:
    shutil.copytree(predicted, tmp_path, dirs_exist_ok=True)
    run = make_run(tmp_path)
    graph = run.network_directory("student") / "int8.xml"
    before = graph.stat().st_mtime_ns
    assert predict(make_run(tmp_path)) and graph.stat().st_mtime_ns == before
    save(run, 2)
    with pytest.raises(UserError, match=r"changed: predict.checkpoint"):
        predict(make_run(tmp_path))
    assert predict(make_run(tmp_path), overwrite=True) and graph.stat().st_mtime_ns > before
    plain = make_run(tmp_path, precision="float32")
    assert prediction_stages(plain)[0].name == "predict"
    assert PredictTask(plain).key != PredictTask(make_run(tmp_path)).key


def test_what_was_predicted_can_be_used_when_the_checkpoint_is_gone(tmp_path: Path, predicted: Path) -> None:
    shutil.copytree(predicted, tmp_path, dirs_exist_ok=True)
    (make_run(tmp_path).network_directory("student") / "checkpoint_0000001.pt").unlink()
    task = PredictTask(make_run(tmp_path))
    assert task.eight_bits is not None
    assert progress_of(task.eight_bits) is progress_of(task) is Progress.DONE


def test_views_do_not_use_a_graph_that_was_made_for_other_offsets(tmp_path: Path) -> None:
    """A graph leaves out what no offset compares; turned offsets may compare it, of a network with plain affinities."""
    as_it_lies, mirrored, turned = (
        PredictTask(make_run(tmp_path, augment=augment)).eight_bits for augment in ("none", "flips", "flips_transpose")
    )
    assert as_it_lies is not None and mirrored is not None and turned is not None
    assert len({as_it_lies.key, mirrored.key, turned.key}) == 3
    assert "predict.augment" not in as_it_lies.settings(), "graphs of earlier versions stay valid"


def test_a_graph_of_which_a_bit_has_changed_is_found_and_not_used(tmp_path: Path, predicted: Path) -> None:
    shutil.copytree(predicted, tmp_path, dirs_exist_ok=True)
    run = make_run(tmp_path)
    weights = run.network_directory("student") / "int8.bin"
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(UserError, match=r"int8.xml: is missing or has changed since it was written"):
        eight_bits.require_unchanged(weights.with_suffix(".xml"))
    task = PredictTask(run)
    with pytest.raises(UserError, match=r"int8.xml: is missing or has changed"), task.process():
        pass
    assert prediction_stages(run)[0].damage().startswith("is missing or has changed")


@pytest.mark.parametrize("package", ["nncf", "openvino"])
def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    run = make_run(tmp_path)
    with pytest.raises(
        UserError, match=rf'predict.precision: int8 needs {package}, .* pip install "emdistill\[int8\]"'
    ):
        predict(run)
    assert not (run.volume / "affinities").file.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "torch"}, "precision int8 needs the engine openvino"),
        ({"autocast": "bfloat16"}, "precision int8 goes with autocast off"),
        ({"device": "cuda"}, "precision int8 is for CPUs"),
    ],
)
def test_what_does_not_go_with_eight_bits_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_run(tmp_path, **settings)


def test_ranges_are_measured_on_raw_of_the_training_regions(tmp_path: Path) -> None:
    """The rest of the volume may hold anything; without training regions the segmented one has to do."""
    run = make_run(tmp_path)
    task = PredictTask(run)
    assert task.eight_bits is not None
    before = [window.clone() for window in task.eight_bits._windows(task.load_network())]
    raw = open_volume(run.volume, "raw", "r+")
    values = raw.read(raw.box)
    values[9:] = 255  # 0.6 of 12 sections are trained on, and an embedding sees one more
    raw.write(raw.box, values)
    again = list(task.eight_bits._windows(task.load_network()))
    assert len(again) == 4 and all(torch.equal(one, other) for one, other in zip(before, again, strict=True))
    assert json.loads(json.dumps(task.eight_bits.settings()))["regions"][0]["source"] == "a"
