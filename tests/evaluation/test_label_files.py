"""Any two label volumes are scored, of any format and anywhere, as what they mean; or refused in one line."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from script_logging import keep_logging  # noqa: F401  a fixture for all tests here
from stored_arrays import ngff, scale, write_group, write_n5, write_precomputed, write_zarr, write_zarr3
from web_server import serving

from pipeline.errors import UserError
from pipeline.evaluation import score_volumes, variation_of_information

SCRIPT = Path(__file__).resolve().parents[2] / "workflows" / "06_evaluate.py"
SHAPE = (12, 40, 44)
LABELS = np.random.default_rng(0).integers(1, 9, SHAPE).astype(np.uint64)
FOUND = (LABELS + (np.indices(SHAPE)[0] >= 6)).astype(np.uint64)
EXPECTED = variation_of_information(FOUND, LABELS)
Script = Callable[..., dict[str, Any] | str]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    """Runs the script: its last line if it scores, the one line that it says if it refuses."""

    def run(prediction: str | Path, labels: str | Path, *options: str) -> dict[str, Any] | str:
        arguments = ["--prediction", str(prediction), "--labels", str(labels), *options]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        printed = capsys.readouterr()
        if stop.value.code == 0:
            scores: dict[str, Any] = json.loads(printed.out.splitlines()[-1])
            return scores
        assert stop.value.code == 2 and not printed.out
        (line,) = printed.err.splitlines()
        return line

    return run


def write_hdf5(path: Path, **arrays: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def write_all(folder: Path, data: np.ndarray) -> list[str]:
    """An array in every format that is scored; its places."""
    write_zarr(folder / "zarr2/labels", data)
    write_zarr3(folder / "zarr3", data, shard=(16, 32, 32))
    write_group(folder / "ome.zarr", ngff({"s0": [scale(0.04, 0.00358, 0.00358)]}))
    write_zarr(folder / "ome.zarr/s0", data)
    write_n5(folder / "in.n5/labels", data)
    write_precomputed(folder / "precomputed", data, resolution=(3.58, 3.58, 40))
    write_hdf5(folder / "in.h5", labels=data)
    np.save(folder / "in.npy", data)
    tifffile.imwrite(folder / "in.tif", data.astype(np.uint16))
    tifffile.imwrite(folder / "packed.tif", data.astype(">u2"), compression="zlib")
    (folder / "sections").mkdir()
    for number, section in enumerate(data):
        tifffile.imwrite(folder / f"sections/z{number:03}.tif", section.astype(np.uint16))
    containers = ["zarr2/labels", "zarr3", "ome.zarr", "ome.zarr/s0", "in.n5/labels", "precomputed", "in.h5/labels"]
    return [*containers, "in.h5", "in.n5", "in.npy", "in.tif", "packed.tif", "sections"]


def test_every_format_is_scored_as_the_array_that_it_holds(tmp_path: Path) -> None:
    (tmp_path / "found").mkdir()
    (tmp_path / "labels").mkdir()
    places = write_all(tmp_path / "found", FOUND)
    write_all(tmp_path / "labels", LABELS)
    for found, labels in zip(places, [*places[3:], *places[:3]], strict=True):
        scores = score_volumes(tmp_path / "found" / found, tmp_path / "labels" / labels)
        assert (scores["voi_split"], scores["voi_merge"]) == pytest.approx(tuple(EXPECTED), abs=1e-6), (found, labels)
        assert scores["scored"] == LABELS.size


def test_volumes_behind_a_web_server_are_scored(tmp_path: Path, script: Script) -> None:
    write_all(tmp_path, LABELS)
    np.save(tmp_path / "found.npy", FOUND)
    with serving(tmp_path) as web:
        for place in ("zarr2/labels", "ome.zarr", "in.n5/labels", "precomputed"):
            scores = script(tmp_path / "found.npy", f"{web.url}/{place}?signature=secret")
            assert isinstance(scores, dict) and scores["voi_split"] == pytest.approx(EXPECTED.split, abs=1e-6)
            assert scores["labels"] == f"{web.url}/{place}"
        said = script(tmp_path / "found.npy", f"{web.url}/nothing")
        assert isinstance(said, str) and "the URL must name the array or group" in said


@pytest.mark.parametrize("attributes", [None, {"axes": ["y", "x"], "resolution": [4, 4]}])
def test_images_are_scored_in_every_format(attributes: dict[str, Any] | None, tmp_path: Path) -> None:
    image = LABELS[0]
    write_zarr(tmp_path / "zarr2", image, attributes, chunks=(16, 16))
    write_hdf5(tmp_path / "in.h5", labels=image)
    np.save(tmp_path / "in.npy", image)
    tifffile.imwrite(tmp_path / "in.tif", image.astype(np.uint16))
    tifffile.imwrite(tmp_path / "packed.tif", image.astype(np.uint8), compression="zlib")
    np.save(tmp_path / "found.npy", FOUND[5])
    np.save(tmp_path / "stack.npy", LABELS[:1])
    expected = variation_of_information(FOUND[5], image)
    for place in ("zarr2", "in.h5/labels", "in.npy", "in.tif", "packed.tif", "stack.npy"):
        scores = score_volumes(tmp_path / "found.npy", tmp_path / place)
        assert (scores["voi_split"], scores["voi_merge"]) == pytest.approx(tuple(expected), abs=1e-6), place


def test_axes_are_read_in_the_order_that_is_stated(tmp_path: Path) -> None:
    write_zarr(tmp_path / "turned", LABELS.transpose(2, 0, 1), {"axes": ["x", "z", "y"]})
    np.save(tmp_path / "found.npy", FOUND)
    scores = score_volumes(tmp_path / "found.npy", tmp_path / "turned")
    assert scores["voi_split"] == pytest.approx(EXPECTED.split, abs=1e-6)


def test_volumes_that_say_different_places_are_refused(tmp_path: Path, script: Script) -> None:
    write_zarr(tmp_path / "here", FOUND, {"resolution": [40, 3.58, 3.58], "offset": [400, 0, 0]})
    write_zarr(tmp_path / "coarse", LABELS, {"resolution": [40, 7.16, 7.16], "offset": [400, 0, 0]})
    write_zarr(tmp_path / "beside", LABELS, {"resolution": [40, 3.58, 3.58], "offset": [440, 0, 0]})
    write_precomputed(tmp_path / "precomputed", LABELS, resolution=(3.58, 3.58, 40), voxel_offset=(0, 0, 10))
    write_zarr(tmp_path / "only_size", LABELS, {"voxel_size": [40, 3.58, 3.58]})
    np.save(tmp_path / "unknown.npy", LABELS)
    said = script(tmp_path / "here", tmp_path / "coarse")
    assert isinstance(said, str) and "has voxels of 40 x 3.58 x 3.58 nm, but" in said
    assert "coarse has 40 x 7.16 x 7.16 nm; give volumes of one resolution" in said
    said = script(tmp_path / "here", tmp_path / "beside")
    assert isinstance(said, str) and "begins at 400 x 0 x 0 nm, but" in said
    for agreeing in ("precomputed", "only_size", "unknown.npy"):
        assert isinstance(script(tmp_path / "here", tmp_path / agreeing), dict), agreeing


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """Labels of which a part is marked as unknown in three ways, beside a segmentation that is shifted."""
    labels = np.kron(np.random.default_rng(4).integers(1, 40, (2, 6, 6)), np.ones((10, 10, 10), int))
    unknown = np.zeros(labels.shape, bool)
    unknown[:, :15] = True
    arrays = {name: labels.astype(dtype) for name, dtype in (("zero", "u8"), ("minus", "i4"), ("highest", "u8"))}
    arrays["zero"][unknown], arrays["minus"][unknown], arrays["highest"][unknown] = 0, -1, 2**64 - 1
    found = (np.roll(labels, 2, 1) + 100).astype("u8")
    write_hdf5(
        tmp_path / "in.h5",
        found=found,
        all=labels,
        floats=labels.astype("f4"),
        short=arrays["zero"].astype("u1"),
        **arrays,
    )
    return tmp_path / "in.h5"


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        ("zero", []),
        ("minus", ["--ignore", "-1"]),
        ("minus", ["--ignore", "18446744073709551615"]),
        ("highest", ["--ignore", "18446744073709551615"]),
        ("highest", ["--ignore=-1"]),
    ],
)
def test_ignored_labels_do_not_count(labels: str, options: list[str], marked: Path, script: Script) -> None:
    """The right values are those of scikit-image on the voxels that are not ignored."""
    scores = script(marked / "found", marked / labels, *options)
    assert isinstance(scores, dict)
    assert (scores["voi_split"], scores["voi_merge"]) == pytest.approx((0.8263, 0.7916), abs=5e-5)
    assert scores["adapted_rand_error"] == pytest.approx(0.2935, abs=5e-5)
    assert scores["scored"] == 54_000
    torn = [
        script(marked / "found", marked / name, "--relabel", *given)
        for name, given in (("zero", []), (labels, options))
    ]
    assert isinstance(torn[1], dict) and {**torn[0], "labels": ""} == {**torn[1], "labels": ""}  # type: ignore[dict-item]


def test_several_labels_can_be_ignored(marked: Path) -> None:
    with h5py.File(marked) as file:
        found, labels = file["found"][:], file["minus"][:]
    expected = variation_of_information(found, labels, ignore_labels=(0, -1, 7))
    scores = score_volumes(marked / "found", marked / "minus", ignore=(-1, 7))
    assert (scores["voi_split"], scores["voi_merge"]) == pytest.approx(tuple(expected), abs=1e-6)
    assert scores["scored"] == np.count_nonzero((labels != -1) & (labels != 7))


@pytest.mark.parametrize(
    ("pair", "options", "message"),
    [
        (("found", "minus"), [], "in.h5/minus: holds the negative id -1; add --ignore -1 if it marks"),
        (("found", "minus"), ["--relabel"], "holds the negative id -1; add --ignore -1"),
        (("found", "minus"), ["--ignore", "3"], "holds the negative id -1; add --ignore -1"),
        (("minus", "all"), [], "in.h5/minus: holds the negative id -1 where there are labels"),
        (("found", "short"), ["--ignore", "-1"], "--ignore: .*short is uint8, whose ids are 0 to 255, never -1"),
        (("found", "floats"), [], "in.h5/floats: is float32; ids of labels are whole numbers"),
    ],
)
def test_ids_are_never_taken_for_others(
    pair: tuple[str, str], options: list[str], message: str, marked: Path, script: Script
) -> None:
    found, labels = pair
    said = script(marked / found, marked / labels, *options)
    assert isinstance(said, str)
    with pytest.raises(UserError, match=message):
        raise UserError(said.removeprefix("error: "))


def test_an_id_that_often_means_unknown_is_told(marked: Path, caplog: pytest.LogCaptureFixture) -> None:
    score_volumes(marked / "found", marked / "highest")
    assert "holds the id 18446744073709551615" in caplog.text
    caplog.clear()
    score_volumes(marked / "found", marked / "highest", ignore=[-1])
    assert not caplog.text


def test_ignore_needs_two_volumes_and_a_whole_number(marked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["--ignore", "1.5"], ["--ignore", str(2**64)], ["--ignore"]):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        assert stop.value.code == 2


def test_a_file_of_one_array_has_no_datasets(tmp_path: Path, script: Script) -> None:
    np.save(tmp_path / "a.npy", LABELS)
    said = script(tmp_path / "a.npy/labels", tmp_path / "a.npy")
    assert isinstance(said, str) and "a.npy has no datasets; leave out 'labels'" in said
