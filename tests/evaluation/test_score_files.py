from __future__ import annotations

import csv
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from stored_arrays import write_group, write_zarr

from pipeline.errors import UserError
from pipeline.evaluation import LabelRules, adapted_rand_error, score_volumes, variation_of_information
from pipeline.volumes import StorageFormat, create_volume

SCRIPT = Path(__file__).resolve().parents[2] / "workflows" / "06_evaluate.py"
SHAPE = (5, 9, 8)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a segmentation in zarr, labels in HDF5, and things that are no labels."""
    rng = np.random.default_rng(0)
    for group in ("ours.zarr", "ours.zarr/segmentation"):
        write_group(tmp_path / group, {})
    segmentation = rng.integers(0, 5, SHAPE).astype(np.uint64)
    write_zarr(tmp_path / "ours.zarr" / "segmentation" / "0.50", segmentation, chunks=(2, 4, 4))
    write_zarr(tmp_path / "ours.zarr" / "affinities", np.zeros((3, *SHAPE), np.uint8))
    with h5py.File(tmp_path / "truth.h5", "w") as file:
        file["volumes/neuron_ids"] = rng.integers(0, 4, SHAPE).astype(np.uint16)
        file["cropped"] = np.ones((5, 9, 7), np.uint16)
        file["floats"] = np.ones(SHAPE, np.float32)
    (tmp_path / "notes.h5").write_text("no HDF5")
    return tmp_path


def arrays(files: Path) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(files / "truth.h5") as file:
        return zarr.open(str(files / "ours.zarr"), mode="r")["segmentation/0.50"][:], file["volumes/neuron_ids"][:]


def test_zarr_and_hdf5_volumes_are_compared_as_arrays_are(files: Path) -> None:
    scores = score_volumes(files / "ours.zarr/segmentation/0.50", files / "truth.h5/volumes/neuron_ids")
    segmentation, labels = arrays(files)
    voi = variation_of_information(segmentation, labels)
    assert (scores["voi_split"], scores["voi_merge"]) == pytest.approx(tuple(voi), abs=1e-6)
    assert scores["adapted_rand_error"] == pytest.approx(adapted_rand_error(segmentation, labels), abs=1e-6)
    assert scores["voxels"] == scores["scored"] == (labels > 0).sum()
    assert (scores["segments"], scores["objects"]) == (5, 3)


def test_connected_parts_can_count_as_objects(files: Path) -> None:
    truth = files / "truth.h5/volumes/neuron_ids"
    assert score_volumes(truth, truth, LabelRules(relabel=True))["objects"] > 3


def test_nothing_labelled_is_an_error_and_never_a_perfect_score(files: Path) -> None:
    truth = files / "truth.h5/volumes/neuron_ids"
    for rules, ignore in ((LabelRules(minimum_size=10**6), ()), (None, (1, 2, 3))):
        with pytest.raises(UserError, match="neuron_ids: nothing is labelled"):
            score_volumes(truth, truth, rules, ignore)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        ("truth.h5/cropped", "cropped: has the shape 5 x 9 x 7, but .*neuron_ids has 5 x 9 x 8"),
        ("truth.h5/floats", "floats: is float32; ids of labels are whole numbers"),
        ("ours.zarr/affinities", r"affinities has 4 axes \(3, 5, 9, 8\), .*an image has two, a volume three"),
        ("truth.h5/volumes", "truth.h5 has no dataset 'volumes'; it has cropped, floats, volumes/neuron_ids"),
        ("truth.h5", "truth.h5/…: it has cropped, floats, volumes/neuron_ids"),
        ("ours.zarr", "ours.zarr/…: it has affinities, segmentation/0.50"),
        ("truth.h5/label", "no dataset 'label'; it has cropped, floats, volumes/neuron_ids"),
        ("ours.zarr/segmentation/0.60", "segmentation has no dataset '0.60'; it has 0.50"),
        ("missing.h5/labels", "missing.h5/labels: there is no such file or folder"),
        ("notes.h5/labels", "notes.h5 is no zarr, OME-NGFF, N5, precomputed, HDF5, TIFF or npy"),
    ],
)
def test_what_cannot_be_compared_is_named_in_one_line(files: Path, prediction: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        score_volumes(files / prediction, files / "truth.h5/volumes/neuron_ids")
    assert "\n" not in str(error.value)


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


def run_here(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Exit status of the script, run in this process: starting Python takes longer than the test."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return int(str(stop.value.code))


def test_the_script_scores_two_volumes_without_a_config(files: Path) -> None:
    done = run_script(
        "--prediction", files / "ours.zarr/segmentation/0.50", "--labels", files / "truth.h5/volumes/neuron_ids"
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout.splitlines()[-1])
    assert scores["voi_sum"] == pytest.approx(sum(variation_of_information(*arrays(files))), abs=1e-5)


def test_the_script_lists_the_errors_of_two_volumes(files: Path) -> None:
    done = run_script(
        "--prediction",
        files / "ours.zarr/segmentation/0.50",
        "--labels",
        files / "truth.h5/volumes/neuron_ids",
        "--errors",
        files / "errors.csv",
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout.splitlines()[-1])
    rows = list(csv.DictReader((files / "errors.csv").open()))
    assert len(rows) > 1
    for kind in ("split", "merge"):
        cost = sum(float(row["voi"]) for row in rows if row["kind"] == kind)
        assert cost == pytest.approx(scores[f"voi_{kind}"], abs=1e-4)


def test_a_dry_run_checks_and_scores_nothing(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = files / "truth.h5/volumes/neuron_ids"
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
    wrong, truth = files / "truth.h5/cropped", files / "truth.h5/volumes/neuron_ids"
    assert run_here(monkeypatch, "--prediction", wrong, "--labels", truth) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "shape" in said
    assert run_here(monkeypatch, "--labels", truth) == 2
    assert "belong together" in capsys.readouterr().err


@pytest.mark.parametrize("storage_format", [2, 3])
def test_a_segmentation_of_a_run_is_scored_by_its_path(
    files: Path, tmp_path: Path, storage_format: StorageFormat
) -> None:
    segmentation, _ = arrays(files)
    place: dict[str, Any] = {"voxel_size": (8, 8, 8), "chunks": (2, 4, 4), "storage_format": storage_format}
    volume = create_volume(tmp_path / "volume.zarr", "segmentation/0.50", segmentation.shape, "uint64", **place)
    volume.write(volume.box, segmentation)
    expected = score_volumes(files / "ours.zarr/segmentation/0.50", files / "truth.h5/volumes/neuron_ids")
    assert score_volumes(tmp_path / "volume.zarr/segmentation/0.50", files / "truth.h5/volumes/neuron_ids") == expected
