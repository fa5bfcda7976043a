"""Whatever determines an output is part of its key: when it changes, the run says so and redoes just what follows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from voronoi_run import NETWORK, make_run, stored

from pipeline.engine.tracking.progress import Progress, progress_of
from pipeline.errors import UserError
from pipeline.networks import build_network, save_checkpoint
from pipeline.run import Run
from pipeline.stages.by_script import (
    agglomeration_stages,
    fragment_stages,
    prediction_stages,
    run_chain,
    segmentation_stages,
)
from pipeline.stages.fragments import FragmentsTask
from pipeline.stages.region_graph import RagTask
from pipeline.volumes import create_volume, note_in_container, open_volume

ALL = ["predict", "fragments", "rag", "agglomerate"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("finished"), segment={"thresholds": [0.6]})
    assert run_chain(run)
    return run


def new_checkpoint(directory: Path, _: pytest.MonkeyPatch) -> None:
    torch.manual_seed(6)
    save_checkpoint(directory / "student" / "checkpoint_0000002.pt", build_network(NETWORK), 2, {})


def raw_imported_anew(directory: Path, _: pytest.MonkeyPatch) -> None:
    note_in_container(directory / "volume.zarr", **{"import": {"section": "other", "data": 1}})


def other_voxel_size(directory: Path, _: pytest.MonkeyPatch) -> None:
    place_raw_anew(directory, voxel_size=(50, 8, 8))


def other_offset(directory: Path, _: pytest.MonkeyPatch) -> None:
    place_raw_anew(directory, offset=(400, 0, 0))


def place_raw_anew(directory: Path, **place: tuple[int, int, int]) -> None:
    """The same intensities at another place, as the container would say it after another import."""
    container = directory / "volume.zarr"
    raw = open_volume(container, "raw")
    intensities = raw.read(raw.box)
    former: dict[str, Any] = {"voxel_size": raw.voxel_size, "offset": raw.offset}
    anew = create_volume(container, "raw", intensities.shape, "uint8", chunks=(4, 16, 16), **{**former, **place})
    anew.write(anew.box, intensities)


def other_code_of_fragments(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FragmentsTask, "version", FragmentsTask.version + 1)


def other_code_of_graph(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RagTask, "version", RagTask.version + 1)


@pytest.mark.parametrize(
    ("change", "sections", "stale", "reason"),
    [
        (new_checkpoint, {}, ALL, r"predict \(changed: predict.checkpoint\)"),
        (raw_imported_anew, {}, ALL, r"predict \(changed: raw\)"),
        (other_voxel_size, {}, ALL, r"predict \(changed: raw\)"),
        (other_offset, {}, ALL, r"predict \(changed: raw\)"),
        (None, {"predict": {"skip_empty": False}}, ALL, r"predict \(changed: predict.skip_empty\)"),
        (None, {"fragments": {"boundary_threshold": 0.4}}, ALL[1:], r"fragments \(changed: fragments.boundary_thresh"),
        (None, {"agglomerate": {"method": "waterz"}}, ALL[3:], r"agglomerate \(changed: agglomerate"),
        (other_code_of_fragments, {}, ALL[1:], r"fragments \(made by another version of the program\)"),
        (other_code_of_graph, {}, ALL[2:], r"rag \(made by another version of the program\)"),
    ],
)
def test_a_changed_input_makes_what_follows_stale_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: Run,
    change: Callable[[Path, pytest.MonkeyPatch], None] | None,
    sections: dict[str, dict[str, object]],
    stale: list[str],
    reason: str,
) -> None:
    shutil.copytree(finished.directory, tmp_path / "run")
    if change is not None:
        change(tmp_path / "run", monkeypatch)
    run = make_run(tmp_path / "run", **{"segment": {"thresholds": [0.6]}, **sections})
    stages = [*prediction_stages(run), *fragment_stages(run), *agglomeration_stages(run)]
    assert [stage.name for stage in stages if progress_of(stage) is Progress.STALE] == stale
    before = stored(run, "affinities")
    with pytest.raises(UserError, match=rf"stale: {reason}.*--overwrite redoes {stale[0]}"):
        run_chain(run)
    assert (stored(run, "affinities") == before).all(), "a refusal changes nothing"
    assert [stage.name for stage in segmentation_stages(run)] == ["segment_0.60", "certainty"]
