"""A run directory has one layout, its regions stay inside the data, and its JSON files are never half-written."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from funlib.geometry import Coordinate

from pipeline.config import Region, load_config, parse_config
from pipeline.errors import UserError
from pipeline.run import Run, read_json, region_box, update_summary, write_json
from pipeline.volumes import create_volume


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of one segmented source and one other."""
    document: dict[str, Any] = {
        "run_directory": str(tmp_path / "run"),
        "volumes": {"sources": {"a": {"kind": "phantom"}, "b": {"kind": "phantom"}}, "segment": {"source": "a"}},
        "student": {"network": {"name": "section_unet"}, "distillation": None},
    }
    return Run(parse_config(document))


def test_the_segmented_source_lies_in_the_main_container(run: Run) -> None:
    assert run.container("a") == run.volume
    assert run.container("b").file == run.directory / "sources" / "b.zarr"


def test_a_source_without_labels_says_so(run: Run) -> None:
    create_volume(run.volume, "raw", (4, 4, 4), np.uint8, chunks=(4, 4, 4))
    assert run.open_raw("a").shape == Coordinate(4, 4, 4)
    assert not run.has_labels("a")
    with pytest.raises(UserError, match=r"volumes\.sources\.a: this source has no labels"):
        run.open_labels("a")


def test_the_saved_config_loads_from_its_folder(run: Run) -> None:
    run.save_config()
    assert json.loads((run.directory / "config.json").read_text())["run_directory"] == "."
    assert load_config(run.directory / "config.json") == run.config


SHAPE = Coordinate(100, 50, 40)


@pytest.mark.parametrize(
    ("region", "begin", "end"),
    [
        ({}, (0, 0, 0), (100, 50, 40)),
        ({"z_share": (0.0, 0.65)}, (0, 0, 0), (65, 50, 40)),
        ({"z_share": (0.7, 1.0)}, (70, 0, 0), (100, 50, 40)),
        ({"begin": (1, 2, 3)}, (1, 2, 3), (100, 50, 40)),
        ({"end": (9, 8, 7)}, (0, 0, 0), (9, 8, 7)),
    ],
)
def test_regions_become_boxes(region: dict[str, Any], begin: tuple[int, ...], end: tuple[int, ...]) -> None:
    box = region_box(Region(source="a", **region), SHAPE, "volumes.segment")
    assert (tuple(box.begin), tuple(box.end)) == (begin, end)


def test_shares_that_meet_share_no_section() -> None:
    shape = Coordinate(37, 5, 5)
    first = region_box(Region(source="a", z_share=(0.0, 0.65)), shape, "")
    second = region_box(Region(source="a", z_share=(0.65, 1.0)), shape, "")
    assert first.intersect(second).size == 0
    assert first.size + second.size == 37 * 25


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ({"end": (101, 50, 40)}, "reaches beyond the source of (100, 50, 40) voxels"),
        ({"begin": (100, 0, 0)}, "is empty"),
        ({"z_share": (0.001, 0.002)}, "is empty"),
    ],
)
def test_regions_outside_the_data_are_refused(region: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        region_box(Region(source="a", **region), SHAPE, "volumes.validate")
    assert str(error.value).startswith("volumes.validate: ")
    assert message in str(error.value)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"fine": 1, "not json": object()})
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    write_json(tmp_path / "summary.json", {})
    (tmp_path / "ordinary").touch()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1, "colleagues can read the file as they can any other"


def test_json_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        write_json(tmp_path / "file" / "summary.json", {})


def test_a_damaged_summary_is_a_users_error(run: Run) -> None:
    write_json(run.summary, {})
    run.summary.write_text('{"scores": ')
    with pytest.raises(UserError, match=r"is damaged .*; delete it, it is written anew"):
        update_summary(run, best={"threshold": 0.5})


def test_summary_sections_are_merged(run: Run) -> None:
    update_summary(run, stages={"predict": {"blocks": 1}}, best={"threshold": 0.4})
    update_summary(run, stages={"segment": {"blocks": 2}}, best={"threshold": 0.5})
    summary = read_json(run.summary)
    assert summary["stages"] == {"predict": {"blocks": 1}, "segment": {"blocks": 2}}
    assert summary["best"] == {"threshold": 0.5}


def test_every_summary_names_versions_and_the_config(run: Run) -> None:
    update_summary(run, best={"threshold": 0.4})
    summary = read_json(run.summary)
    assert summary["versions"]["zarr"].startswith("2.")
    moved = Run(run.config.model_copy(update={"run_directory": "/elsewhere"}))
    changed = Run(run.config.model_copy(update={"seed": 9}))
    assert summary["config_hash"] == run.config_hash == moved.config_hash != changed.config_hash
