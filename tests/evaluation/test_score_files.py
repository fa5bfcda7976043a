from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from pipeline.errors import UserError
from pipeline.evaluation import LabelRules, adapted_rand_error, score_volumes, variation_of_information

SCRIPT = Path(__file__).resolve().parents[2] / "workflows" / "06_evaluate.py"
SHAPE = (5, 9, 8)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a segmentation in zarr, labels in HDF5, and things that are no labels."""
    rng = np.random.default_rng(0)
    group = zarr.open_group(str(tmp_path / "ours.zarr"), mode="w")
    group.create_dataset("segmentation/0.50", data=rng.integers(0, 5, SHAPE).astype(np.uint64), chunks=(2, 4, 4))
    group.create_dataset("affinities", data=np.zeros((3, *SHAPE), np.uint8))
    with h5py.File(tmp_path / "truth.h5", "w") as file:
        file["volumes/labels"] = rng.integers(0, 4, SHAPE).astype(np.uint16)
        file["cropped"] = np.ones((5, 9, 7), np.uint16)
        file["floats"] = np.ones(SHAPE, np.float32)
    (tmp_path / "notes.h5").write_text("no HDF5")
    return tmp_path


def arrays(files: Path) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(files / "truth.h5") as file:
        return zarr.open(str(files / "ours.zarr"), mode="r")["segmentation/0.50"][:], file["volumes/labels"][:]


def test_zarr_and_hdf5_volumes_are_compared_as_arrays_are(files: Path) -> None:
    scores = score_volumes(files / "ours.zarr/segmentation/0.50", files / "truth.h5/volumes/labels")
    segmentation, labels = arrays(files)
    voi = variation_of_information(segmentation, labels)
    assert (scores["voi_split"], scores["voi_merge"]) == pytest.approx(tuple(voi), abs=1e-6)
    assert scores["adapted_rand_error"] == pytest.approx(adapted_rand_error(segmentation, labels), abs=1e-6)
    assert scores["voxels"] == (labels > 0).sum()
    assert (scores["segments"], scores["objects"]) == (5, 3)


def test_connected_parts_can_count_as_objects(files: Path) -> None:
    truth = files / "truth.h5/volumes/labels"
    assert score_volumes(truth, truth, LabelRules(relabel=True))["objects"] > 3
    assert score_volumes(truth, truth, LabelRules(minimum_size=10**6))["objects"] == 0


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        ("truth.h5/cropped", r"has shape \(5, 9, 7\)"),
        ("truth.h5/floats", "integers in 2 or 3 dimensions, this is float32"),
        ("ours.zarr/affinities", "integers in 2 or 3 dimensions"),
        ("truth.h5/volumes", "name a dataset in it.*cropped, floats, volumes/labels"),
        ("truth.h5", "name a dataset in it"),
        ("ours.zarr", "name a dataset in it.*segmentation/0.50"),
        ("truth.h5/label", "no dataset 'label'.*volumes/labels"),
        ("ours.zarr/segmentation/0.60", "no dataset.*segmentation/0.50"),
        ("missing.h5/labels", "no such HDF5 file or zarr container"),
        ("notes.h5/labels", "cannot be read as HDF5"),
    ],
)
def test_what_cannot_be_compared_is_named_in_one_line(files: Path, prediction: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        score_volumes(files / prediction, files / "truth.h5/volumes/labels")
    assert "\n" not in str(error.value)
    assert prediction in str(error.value)


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def run_here(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Exit status of the script, run in this process: starting Python takes longer than the test."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return int(str(stop.value.code))


def test_the_script_scores_two_volumes_without_a_config(files: Path) -> None:
    done = run_script(
        "--prediction", files / "ours.zarr/segmentation/0.50", "--labels", files / "truth.h5/volumes/labels"
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout.splitlines()[-1])
    assert scores["voi_sum"] == pytest.approx(sum(variation_of_information(*arrays(files))), abs=1e-5)


def test_a_dry_run_checks_and_scores_nothing(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = files / "truth.h5/volumes/labels"
    ours = files / "ours.zarr/segmentation/0.50"
    assert run_here(monkeypatch, "--dry-run", "--prediction", ours, "--labels", truth) == 0
    printed = capsys.readouterr().out
    assert "would score" in printed
    assert "voi" not in printed
    wrong = files / "truth.h5/cropped"
    assert run_here(monkeypatch, "--dry-run", "--prediction", wrong, "--labels", truth) == 2


def test_the_script_says_in_one_line_what_is_wrong(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, truth = files / "truth.h5/cropped", files / "truth.h5/volumes/labels"
    assert run_here(monkeypatch, "--prediction", wrong, "--labels", truth) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "shape" in said
    assert run_here(monkeypatch, "--labels", truth) == 2
    assert "belong together" in capsys.readouterr().err
