"""Whole runs: 12-bit images in 16 bits, and runs that are continued from elsewhere."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline import api
from pipeline.config import load_config
from pipeline.run import Run, read_json

SHAPE = (21, 70, 75)
NEIGHBOURS = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]


def cells() -> tuple[np.ndarray, np.ndarray]:
    """Raw with dark borders between Voronoi cells, and the cells; (z, y, x) uint8 and uint64."""
    chance = np.random.default_rng(0)
    seeds = chance.random((25, 3)) * SHAPE
    distances = np.stack(
        [sum((axis - s) ** 2 for axis, s in zip(np.indices(SHAPE), seed, strict=True)) for seed in seeds]
    )
    order = np.argsort(distances, axis=0)[:2]
    first, second = (np.sqrt(np.take_along_axis(distances, order[rank : rank + 1], 0)[0]) for rank in (0, 1))
    raw = np.clip(60 + 40 * (second - first), 0, 200) + chance.normal(0, 6, SHAPE)
    return raw.clip(0, 255).astype(np.uint8), order[0].astype(np.uint64) + 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same image in 8 bits and in 12 bits of 16, and a config that trains a small network on it."""
    place = tmp_path_factory.mktemp("run_all")
    raw, labels = cells()
    for name, data in (("8_bits", raw), ("12_bits", raw.astype(np.uint16) * 16)):
        with h5py.File(place / f"{name}.h5", "w") as file:
            file["raw"], file["labels"] = data, labels
            file["raw"].attrs["voxel_size"] = [40, 8, 8]
    schedule: dict[str, Any] = {"iterations": 200, "batch_size": 2, "patch_shape": [5, 32, 32], "learning_rate": 0.004}
    rarely = dict.fromkeys(("checkpoint_every", "validate_every", "picture_every"), 200)
    document = {
        "run_directory": "out",
        "volumes": {
            "sources": {"s": {"kind": "file", "path": "8_bits.h5"}},
            "train": [{"source": "s", "end": [14, 70, 75]}],
            "validate": {"source": "s", "begin": [15, 0, 0]},
            "segment": {"source": "s"},
            "import_block": [8, 32, 32],
        },
        "student": {
            "network": {"name": "section_unet", "sections": 3, "widths": [4, 6]},
            "training": {**schedule, **rarely, "validate_shape": [4, 32, 32], "loader_workers": 0},
            "distillation": None,
            "offsets": NEIGHBOURS,
        },
        "augment": {"elastic": None},
        "targets": {"offsets": NEIGHBOURS, "erosion": 0},
        "cluster": {"workers": 1, "executor": "serial"},
        "predict": {"block_size": [8, 32, 32], "engine": "torch"},
        "fragments": {"context": [2, 8, 8]},
        "evaluate": {"minimum_size": 0},
    }
    (place / "config.json").write_text(json.dumps(document))
    return place


def run_all(folder: Path, config: str | Path, *settings: str) -> dict[str, Any]:
    """What the run knows after everything is done, started in a folder."""
    with contextlib.chdir(folder):
        run = Run(load_config(Path(config), list(settings)))
        assert api.run_all(run)
    return read_json(run.summary)


@pytest.fixture(scope="module")
def eight_bits(folder: Path) -> dict[str, Any]:
    """The best scores of the image in 8 bits."""
    return dict(run_all(folder, "config.json")["best"])


DEEP = "volumes.sources.s.path=12_bits.h5"
TRAINED = "predict.checkpoint=out/student/checkpoint_0000200.pt"


def test_twelve_bits_are_segmented_as_well_as_eight(folder: Path, eight_bits: dict[str, Any]) -> None:
    twelve = run_all(folder, "config.json", DEEP, "run_directory=twelve")["best"]
    assert abs(twelve["voi_sum"] - eight_bits["voi_sum"]) < 0.2, (twelve, eight_bits)


def test_a_network_of_another_run_is_told_of_other_intensities(
    folder: Path, eight_bits: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    run_all(folder, "config.json", "volumes.train=[]", TRAINED, "run_directory=same")
    assert "other intensities" not in caplog.text
    run_all(folder, "config.json", "volumes.train=[]", TRAINED, DEEP, "run_directory=other")
    (told,) = [record.message for record in caplog.records if "other intensities" in record.message]
    assert told.startswith("s has other intensities than what") and "against 0 to 255; set volumes.sources.s.i" in told


def test_a_checkpoint_named_by_a_relative_path_is_found_from_anywhere(
    folder: Path, eight_bits: dict[str, Any], tmp_path: Path
) -> None:
    here = folder / "here"
    here.mkdir()
    settings = ["volumes.train=[]", "volumes.sources.s.path=../8_bits.h5", TRAINED.replace("out", "../out")]
    assert run_all(here, "../config.json", *settings)["best"] == eight_bits, "the same network on the same voxels"
    again = run_all(tmp_path, here / "out" / "config.json")
    assert again["best"] == eight_bits
    computed = {name for name, stage in again["stages"].items() if stage["blocks_done"]}
    assert computed == {"import"}, "what is imported is not even looked at again, so that the first time stands there"
