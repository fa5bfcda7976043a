"""A run directory can be moved, and continued from anywhere: no relative path loses its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.config.volumes import FileSource
from pipeline.run import Run


def write(folder: Path, **changes: Any) -> Path:
    document = {
        "run_directory": "run",
        "volumes": {
            "sources": {"s": {"kind": "file", "path": "data/raw.h5", "labels_path": "s3://lab/labels.zarr"}},
            "segment": {"source": "s"},
        },
        "student": {"network": {"name": "section_unet"}, "distillation": None},
        "predict": {"checkpoint": "nets/a.pt"},
        **changes,
    }
    (folder / "my.json").write_text(json.dumps(document))
    return folder / "my.json"


def test_paths_of_a_saved_config_keep_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data/raw.h5", "nets/a.pt", "elsewhere/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    run = Run(load_config(write(tmp_path)))
    run.save_config()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = load_config(tmp_path / "run" / "config.json")
    assert again.predict.checkpoint == str(tmp_path / "nets" / "a.pt")
    source = again.volumes.sources["s"]
    assert isinstance(source, FileSource)
    assert source.path == str(tmp_path / "data" / "raw.h5")
    assert source.labels_path == "s3://lab/labels.zarr"
    assert Run(again).config_hash == run.config_hash


def test_paths_inside_a_run_move_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "run" / "student" / "a.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("")
    monkeypatch.chdir(tmp_path)
    Run(load_config(write(tmp_path, predict={"checkpoint": "run/student/a.pt"}))).save_config()
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    moved = load_config(tmp_path / "moved" / "config.json")
    assert moved.predict.checkpoint == str(tmp_path / "moved" / "student" / "a.pt")


@pytest.mark.parametrize("text", ["~/raw.h5", "${LAB}/raw.h5", "https://host/raw.zarr", "/abs/raw.h5"])
def test_what_is_no_relative_path_stays_as_it_is(tmp_path: Path, text: str) -> None:
    volumes = {"sources": {"s": {"kind": "file", "path": text}}, "segment": {"source": "s"}}
    source = load_config(write(tmp_path, volumes=volumes)).volumes.sources["s"]
    assert isinstance(source, FileSource) and source.path == text
