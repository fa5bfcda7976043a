"""A tiny labelled phantom, imported once, and runs on copies of it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import apply_override, parse_config
from pipeline.run import Run
from pipeline.stages.importing import ensure_imported

SCHEDULE = {
    "iterations": 4,
    "batch_size": 2,
    "patch_shape": [5, 48, 48],
    "learning_rate": 0.01,
    "warm_up": 2,
    "autocast": "off",
    "device": "cpu",
    "loader_workers": 0,
    "checkpoint_every": 1000,
    "validate_every": 1000,
    "validate_shape": [6, 64, 64],
    "log_every": 1,
    "picture_every": 1000,
}

DOCUMENT: dict[str, Any] = {
    "run_directory": "replaced",
    "volumes": {
        "sources": {"p": {"kind": "phantom", "shape": [24, 96, 96], "voxel_size": [40, 8, 8], "seed": 1}},
        "train": [{"source": "p", "z_share": [0.0, 0.6]}],
        "validate": {"source": "p", "z_share": [0.6, 1.0]},
        "segment": {"source": "p"},
    },
    "teacher": {"network": {"name": "section_unet", "sections": 3, "widths": [4, 8]}, "training": dict(SCHEDULE)},
    "student": {
        "network": {"name": "section_unet", "sections": 3, "widths": [4, 6]},
        "training": dict(SCHEDULE),
        "distillation": {},
    },
    "augment": {"elastic": None},
    "targets": {"offsets": [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, -4, 0], [0, 0, -4]], "erosion_in_plane": True},
}

MakeRun = Callable[..., Run]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def run_of(directory: Path, overrides: tuple[str, ...]) -> Run:
    document = copy.deepcopy(DOCUMENT)
    for override in overrides:
        apply_override(document, override)
    config = parse_config(document)
    return Run(config.model_copy(update={"run_directory": str(directory)}))


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("phantom")
    ensure_imported(run_of(directory, ()))
    return directory


@pytest.fixture
def make_run(imported: Path, tmp_path: Path) -> MakeRun:
    """`make_run("key=value", …, name="run")`: a run on the phantom; the same name is the same directory."""

    def make(*overrides: str, name: str = "run") -> Run:
        directory = tmp_path / name
        if not directory.exists():
            shutil.copytree(imported, directory)
        return run_of(directory, overrides)

    return make


EXTRA = {"kind": "phantom", "shape": [8, 64, 64], "voxel_size": [40, 8, 8], "seed": 2}
UNLABELLED = (f"volumes.sources.u={json.dumps(EXTRA)}", 'volumes.unlabelled=[{"source": "u"}]')


@pytest.fixture(scope="session")
def unlabelled_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container from which all labels were taken away."""
    run = run_of(tmp_path_factory.mktemp("unlabelled"), UNLABELLED)
    ensure_imported(run, ["u"])
    shutil.rmtree(run.container("u") / "labels")
    return run.container("u").file


@pytest.fixture
def make_unlabelled(make_run: MakeRun, unlabelled_source: Path) -> MakeRun:
    """`make_run` with a second source, which has no labels, in `volumes.unlabelled`."""

    def make(*overrides: str, name: str = "run") -> Run:
        run = make_run(*UNLABELLED, *overrides, name=name)
        if not run.container("u").file.exists():
            shutil.copytree(unlabelled_source, run.container("u"))
        return run

    return make
