"""Unlabelled raw to a segmentation with a ready-made student, without any training."""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from pipeline.commands.run_all import plan
from pipeline.config import dump_config, load_config
from pipeline.config.pretrained import read_card
from pipeline.errors import UserError
from pipeline.networks.fitting import other_nanometres
from pipeline.run import Run
from pipeline.stages.importing import ensure_imported
from pipeline.stages.predict import PredictTask
from pipeline.training import describe_distillation, train_student
from pipeline.volumes import open_volume

ROOT = Path(__file__).parents[2]
STUDENT = "fibsem-10nm"


def pyramid(folder: Path, sizes: list[list[float]], shape: tuple[int, int, int] = (16, 64, 64)) -> Path:
    """An OME-NGFF pyramid of smooth raw, with the voxel sizes of its levels in nanometres."""
    group = zarr.open_group(str(folder), mode="w")
    datasets = []
    for level, size in enumerate(sizes):
        extent = tuple(max(8, round(n * sizes[0][0] / size[0])) for n in shape)
        noise = np.random.default_rng(level).integers(60, 200, [e // 4 for e in extent], dtype=np.uint8)
        group.create_dataset(f"s{level}", data=noise.repeat(4, 0).repeat(4, 1).repeat(4, 2))
        datasets.append({"path": f"s{level}", "coordinateTransformations": [{"type": "scale", "scale": size}]})
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return folder


def new_run(volume: Path, directory: Path, level: int | None = None) -> Run:
    document = {
        "run_directory": str(directory),
        "volumes": {
            "sources": {"a": {"kind": "file", "path": str(volume), "level": level}},
            "segment": {"source": "a"},
        },
        "predict": {"checkpoint": f"pretrained:{STUDENT}", "block_size": [16, 32, 32]},
    }
    return Run(load_config(document))


@pytest.mark.parametrize("train", [train_student, describe_distillation])
def test_a_training_says_that_none_is_needed(tmp_path: Path, train: Callable[[Run], object]) -> None:
    """A ready-made student and no labels: neither its patch nor anything else of a training matters."""
    run = new_run(pyramid(tmp_path / "raw.zarr", [[10, 10, 10]]), tmp_path / "run")
    with pytest.raises(UserError, match=f"pretrained:{STUDENT}.* predicts without any training") as raised:
        train(run)
    assert raised.value.where == "volumes.train"


def run_on(volume: Path, directory: Path, level: int | None = None) -> Run:
    run = new_run(volume, directory, level)
    ensure_imported(run)
    return run


def test_raw_alone_becomes_a_segmentation_at_the_threshold_of_the_card(tmp_path: Path) -> None:
    volume = pyramid(tmp_path / "raw.zarr", [[10, 10, 10]], (8, 112, 112))
    config = {
        "run_directory": str(tmp_path / "run"),
        "volumes": {"sources": {"a": {"kind": "file", "path": str(volume)}}, "segment": {"source": "a"}},
        "predict": {"checkpoint": f"pretrained:{STUDENT}"},
        "cluster": {"executor": "serial"},
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config))
    command = [sys.executable, str(ROOT / "workflows" / "run_all.py"), str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "iteration" not in done.stderr and not (tmp_path / "run" / "student").exists()
    report = (tmp_path / "run" / "report.html").read_text()
    assert f"Affinities were predicted by <code>pretrained:{STUDENT}</code>" in report
    run = Run(load_config(tmp_path / "run" / "config.json"))
    segmentation = open_volume(run.volume, f"segmentation/{read_card(STUDENT).threshold:.2f}")
    assert len(np.unique(segmentation.read(segmentation.box))) > 1


def test_other_voxels_are_told_with_the_level_that_fits_better(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume = pyramid(tmp_path / "raw.zarr", [[4, 4, 4], [8, 8, 8], [16, 16, 16]])
    fine = run_on(volume, tmp_path / "fine")
    with caplog.at_level(logging.WARNING):
        PredictTask(fine).check()
    (told,) = [record.message for record in caplog.records if "pretrained" in record.message]
    assert "a has voxels of 4 x 4 x 4 nm, but pretrained:fibsem-10nm was trained on 10 x 10 x 10 nm" in told
    assert "level 1 of its pyramid, 8 x 8 x 8 nm, fits better: set volumes.sources.a.level to it" in told
    coarse = other_nanometres(STUDENT, run_on(volume, tmp_path / "coarse", level=2).source("a"))
    assert coarse is not None and "level 1 of its pyramid" in coarse
    best = other_nanometres(STUDENT, run_on(volume, tmp_path / "best", level=1).source("a"))
    assert best is not None and "no level of a pyramid fits better" in best


def test_other_intensities_are_told_with_the_name_of_the_student(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not with the place of a file in the installation, which nobody has named."""
    volume = pyramid(tmp_path / "raw.zarr", [[10, 10, 10]])
    changed = dump_config(new_run(volume, tmp_path / "run").config)
    changed["volumes"]["sources"]["a"]["intensity"] = [100, 120]
    dim = Run(load_config(changed))
    ensure_imported(dim)
    with caplog.at_level(logging.WARNING):
        PredictTask(dim).check()
    (told,) = [record.getMessage() for record in caplog.records if "has other intensities" in record.getMessage()]
    assert told.startswith(f"a has other intensities than what pretrained:{STUDENT} was trained on: 100 to 120")


def test_a_dry_run_tells_other_voxels_before_anything_is_imported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("raw", data=np.zeros((8, 64, 64), np.uint8)).attrs["resolution"] = [20, 20, 20]
    with caplog.at_level(logging.INFO):
        plan(new_run(tmp_path / "raw.h5", tmp_path / "run"), argparse.Namespace(config="mine.json", set=["seed=2"]))
    assert "a has voxels of 20 x 20 x 20 nm, but pretrained:fibsem-10nm was trained on 10 x 10 x 10 nm" in caplog.text
    assert caplog.text.count("trained on 10 x 10 x 10 nm") == 1
    assert caplog.messages[-1].startswith("disk: at most ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("size", "told"), [([9, 10, 11.9], False), ([10, 10, 12.1], True)])
def test_a_fifth_is_near_enough(tmp_path: Path, size: list[float], told: bool) -> None:
    run = run_on(pyramid(tmp_path / "raw.zarr", [size]), tmp_path / "run")
    assert (other_nanometres(STUDENT, run.source("a")) is not None) == told
