"""Volumes of classes: any format, place and voxel size; every voxel of raw has the class of the nearest one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from voronoi_run import NETWORK, make_run

from pipeline import api, whole_run
from pipeline.config import dump_config, parse_config
from pipeline.engine.blocks.grid import BlockGrid
from pipeline.errors import UserError
from pipeline.networks import build_network, save_checkpoint
from pipeline.run import Run
from pipeline.stages.class_volume import open_class_volume
from pipeline.stages.fragment_classes import FragmentClassesTask
from pipeline.volumes import Box, create_volume

RAW, SIZE = (9, 42, 38), (40.0, 8.0, 8.0)
"""Voxels of raw and their size in nanometres; raw begins at 0, the region at voxel 1, 2, 3."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run")).directory


def run_with(directory: Path, section: dict[str, Any]) -> Run:
    return make_run(directory, agglomerate={"never_join": section})


def classes_of(shape: tuple[int, ...], dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(5).integers(0, 200, shape).astype(dtype)


def read(run: Run, box: Box | None = None) -> np.ndarray:
    with ExitStack() as stack:
        return open_class_volume(run, stack).read(box or BlockGrid.of_run(run).region)


def nearest(classes: np.ndarray, size: tuple[float, ...], offset: tuple[float, ...]) -> np.ndarray:
    """The class at the middle of each voxel of the region, voxel by voxel."""
    result = np.zeros([extent - begin for extent, begin in zip(RAW, (1, 2, 3), strict=True)], np.uint64)
    for index in np.ndindex(*result.shape):
        middle = (np.array(index) + (1, 2, 3) + 0.5) * SIZE
        place = np.floor((middle - offset) / size + 1e-9).astype(int)
        result[index] = classes[tuple(np.clip(place, 0, np.array(classes.shape) - 1))]
    return result


def stored(path: Path, classes: np.ndarray, size: tuple[float, ...], offset: tuple[float, ...]) -> dict[str, Any]:
    volume = create_volume(
        path, "c", classes.shape, str(classes.dtype), chunks=(4, 16, 16), voxel_size=size, offset=offset
    )
    volume.write(volume.box, classes)
    return {"path": str(path)}


@pytest.mark.parametrize(
    ("shape", "size", "offset"),
    [
        (RAW, SIZE, (0, 0, 0)),
        ((12, 50, 60), SIZE, (-40, -16, -8)),
        ((9, 21, 19), (40, 16, 16), (0, 0, 0)),
        ((4, 10, 9), (80, 32, 32), (0, 0, 0)),  # a level that was rounded down
        ((8, 30, 30), (50, 12.5, 11), (-10, -3, 5.5)),
        ((20, 90, 80), (20, 4, 4), (0, 0, 0)),
        ((9, 84, 38), (40, 4, 8), (0, -0.5, 0)),
    ],
)
def test_every_voxel_has_the_class_of_the_nearest_one_whatever_box_it_is_read_with(
    shape: tuple[int, ...], size: tuple[float, ...], offset: tuple[float, ...], directory: Path, tmp_path: Path
) -> None:
    classes = classes_of(shape)
    run = run_with(directory, stored(tmp_path / "classes.zarr", classes, size, offset))
    expected = nearest(classes, size, offset)
    np.testing.assert_array_equal(read(run), expected)
    region = BlockGrid.of_run(run).region
    for box in region.split((3, 17, 11)):
        np.testing.assert_array_equal(read(run, box), expected[box.relative_to(region).slices])


@pytest.mark.parametrize("kind", ["tiff", "hdf5", "npy", "mask"])
def test_files_are_read_where_they_are(kind: str, directory: Path, tmp_path: Path) -> None:
    classes = classes_of((9, 21, 19)) if kind != "mask" else classes_of((9, 21, 19)) > 100
    path = tmp_path / {"tiff": "classes.tif", "hdf5": "classes.h5"}.get(kind, "classes.npy")
    if kind == "tiff":
        tifffile.imwrite(path, classes)
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            file["classes"] = classes
    else:
        np.save(path, classes)
    run = run_with(directory, {"path": str(path), "voxel_size": [40, 16, 16]})
    np.testing.assert_array_equal(read(run), nearest(classes, (40, 16, 16), (0, 0, 0)))
    key = FragmentClassesTask(run).key
    assert key == FragmentClassesTask(run).key
    moved = run_with(directory, {"path": str(path), "voxel_size": [40, 16, 16], "offset": [0, 0, 8]})
    assert FragmentClassesTask(moved).key != key


def test_classes_that_are_one_and_what_lies_outside(directory: Path, tmp_path: Path) -> None:
    classes = np.arange(9 * 42 * 20, dtype=np.uint16).reshape(9, 42, 20) % 6
    section = {
        **stored(tmp_path / "classes.zarr", classes, SIZE, (0, 0, 0)),
        "together": [[5, 2], [0, 4]],
        "outside": 7,
    }
    found = read(run_with(directory, section))
    expected = np.full((8, 40, 35), 7)
    expected[:, :, :17] = np.array([0, 1, 2, 3, 0, 2])[classes[1:, 2:, 3:]]
    np.testing.assert_array_equal(found, expected)


def bad_volumes(path: Path) -> dict[str, tuple[dict[str, Any], str, str]]:
    """Sections that cannot be right: the key that the error names, and words of it."""

    def section(
        name: str, classes: np.ndarray, size: Any = SIZE, offset: Any = (0, 0, 0), **keys: Any
    ) -> dict[str, Any]:
        return {**stored(path / name, classes, size, offset), **keys}

    np.save(path / "other.npy", classes_of((5, 6, 7)))
    np.save(path / "negative.npy", np.full(RAW, -1, np.int32))
    whole = classes_of(RAW)
    return {
        "missing": ({"path": str(path / "nothing.zarr")}, "path", "nothing.zarr"),
        "no such array": (section("a.zarr", whole, dataset="soma"), "dataset", "soma"),
        "float": (section("f.zarr", whole.astype("float32")), "path", "float32"),
        "part": (section("p.zarr", whole[:, :, :20]), "path", "outside"),
        "beside": (section("b.zarr", whole, offset=(0, 0, 8000), outside=0), "path", "no voxel in common"),
        "no size": ({"path": str(path / "other.npy")}, "voxel_size", "how large"),
        "no place": ({"path": str(path / "other.npy"), "voxel_size": [40, 8, 8]}, "offset", "which part"),
        "negative": ({"path": str(path / "negative.npy")}, "path", "-1"),
    }


@pytest.mark.parametrize(
    "name", ["missing", "no such array", "float", "part", "beside", "no size", "no place", "negative"]
)
def test_what_cannot_be_meant_is_one_line_with_its_key(name: str, directory: Path, tmp_path: Path) -> None:
    section, key, words = bad_volumes(tmp_path)[name]
    with pytest.raises(UserError, match=words) as raised:
        read(run_with(directory, section))
    assert str(raised.value).startswith(f"agglomerate.never_join.{key}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"path": "c.zarr", "classes": [1]}, "agglomerate.never_join.classes"),
        ({"alone": [1]}, "agglomerate.never_join.path"),
        ({"path": "c.zarr", "alone": [-1]}, "agglomerate.never_join.alone"),
        ({"path": "c.zarr", "alone": [1], "together": [[1, 2]]}, "agglomerate.never_join: .*class 1 twice"),
    ],
)
def test_keys_that_cannot_be_meant_are_refused(section: dict[str, Any], words: str, directory: Path) -> None:
    from pipeline.config import dump_config

    document = dump_config(make_run(directory).config)
    document["agglomerate"]["never_join"] = section
    with pytest.raises(UserError, match=words):
        parse_config(document)


def test_it_is_missed_before_networks_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document: dict[str, Any] = {
        "run_directory": str(tmp_path / "run"),
        "volumes": {"sources": {"a": {"kind": "phantom", "shape": [8, 48, 48]}}, "segment": {"source": "a"}},
        "student": {"network": dump_config(NETWORK), "distillation": None},
        "agglomerate": {"never_join": {"path": str(tmp_path / "nothing.zarr")}},
    }
    run = Run(parse_config(document))
    save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", build_network(NETWORK), 1, {})
    monkeypatch.setattr(whole_run, "train_networks", pytest.fail)
    with pytest.raises(UserError, match=r"never_join\.path: .*nothing\.zarr"):
        api.run_all(run)
