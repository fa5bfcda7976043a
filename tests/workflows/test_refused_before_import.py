"""What a command refuses in the end is refused before anything is imported, and by its dry run: not after hours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from script_calls import call

SHAPE = (24, 64, 64)
OFFSETS = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
WORKFLOWS = Path(__file__).parents[2] / "workflows"
BOTH = pytest.mark.parametrize("options", [("--dry-run",), ()], ids=["dry run", "real run"])


def raw_file(folder: Path, labelled: bool = True, dtype: str = "uint8") -> Path:
    """A volume that has to be converted."""
    path = folder / "volume.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = np.random.default_rng(0).integers(0, 255, SHAPE).astype(dtype)
        file["raw"].attrs["resolution"] = [40, 8, 8]
        if labelled:
            file["labels"] = np.ones(SHAPE, np.uint64)
    return path


def config_file(folder: Path, source: Path, volumes: Mapping[str, Any] | None = None, **sections: Any) -> Path:
    """A config that trains a student alone on the first sections."""
    schedule = {"iterations": 4, "batch_size": 1, "patch_shape": [3, 32, 32], "loader_workers": 0}
    document: dict[str, Any] = {
        "run_directory": str(folder / "run"),
        "volumes": {
            "sources": {"s": {"kind": "file", "path": str(source)}},
            "train": [{"source": "s", "end": [16, 64, 64]}],
            "validate": {"source": "s", "begin": [16, 0, 0]},
            "segment": {"source": "s"},
            **(volumes or {}),
        },
        "student": {
            "network": {"name": "section_unet", "sections": 3, "widths": [4, 6]},
            "training": schedule,
            "distillation": None,
            "offsets": OFFSETS,
        },
        "augment": {"elastic": None},
        "targets": {"offsets": OFFSETS},
        "cluster": {"executor": "serial"},
    }
    for name, values in sections.items():
        document[name] = {**document.get(name, {}), **values}
    (folder / "mine.json").write_text(json.dumps(document))
    return folder / "mine.json"


def assert_refused(folder: Path, message: str, step: str, *arguments: object) -> None:
    """A command ends with one line, and nothing has been imported."""
    called = call(step, *map(str, arguments))
    assert called.status == 2, called
    (line,) = [line for line in called.told if line.startswith("error: ")]
    assert message in line
    assert not (folder / "run" / "volume.zarr").exists() and not (folder / "run" / "config.json").exists()


BEYOND = {"source": "s", "begin": [20, 0, 0], "end": [30, 64, 64]}
REGIONS: dict[str, dict[str, Any]] = {
    "volumes.train.0": {"train": [BEYOND], "validate": None},
    "volumes.validate": {"validate": BEYOND},
    "volumes.segment": {"segment": BEYOND},
}


@BOTH
@pytest.mark.parametrize("where", REGIONS)
def test_a_region_beyond_its_source(tmp_path: Path, where: str, options: tuple[str, ...]) -> None:
    config = config_file(tmp_path, raw_file(tmp_path), REGIONS[where])
    message = f"{where}: the region from voxel (20, 0, 0) to (30, 64, 64) reaches beyond the source of (24, 64, 64)"
    assert_refused(tmp_path, message, "run", config, *options)


@BOTH
@pytest.mark.parametrize("step", ["run", "distill"])
def test_a_source_without_labels_for_a_training(tmp_path: Path, step: str, options: tuple[str, ...]) -> None:
    config = config_file(tmp_path, raw_file(tmp_path, labelled=False))
    assert_refused(tmp_path, "volumes.train.0: the source 's' has no labels", step, config, *options)


@BOTH
def test_an_unlabelled_volume_given_by_data(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "sub").mkdir()
    config = config_file(tmp_path, raw_file(tmp_path / "sub"))
    given = raw_file(tmp_path, labelled=False)
    assert_refused(tmp_path, "the source 'data' has no labels", "run", config, "--data", given, *options)


@BOTH
def test_a_patch_larger_than_its_region(tmp_path: Path, options: tuple[str, ...]) -> None:
    config = config_file(tmp_path, raw_file(tmp_path), {"train": [{"source": "s", "end": [16, 20, 64]}]})
    assert_refused(tmp_path, "volumes.train.0: the region has (16, 20, 64) voxels", "distill", config, *options)


def taught_config(folder: Path, **entry: object) -> Path:
    config = config_file(folder, raw_file(folder))
    document = json.loads(config.read_text())
    document["teacher"] = {"kind": "affinities", "affinities": {"s": entry}}
    document["student"]["distillation"] = {}
    config.write_text(json.dumps(document))
    return config


def stored_affinities(folder: Path, offsets: list[list[int]], shape: tuple[int, int, int] = SHAPE) -> Path:
    """Affinities on disk with the offsets of their channels."""
    group = zarr.open_group(str(folder / "teacher.zarr"), mode="w")
    array = group.create_dataset("affinities", data=np.full((len(offsets), *shape), 100, np.uint8))
    array.attrs.update({"offsets": offsets, "resolution": [40, 8, 8]})
    return folder / "teacher.zarr"


@BOTH
def test_a_module_that_is_not_there_or_takes_more_than_a_patch(tmp_path: Path, options: tuple[str, ...]) -> None:
    config = config_file(tmp_path, raw_file(tmp_path))
    document = json.loads(config.read_text())
    module = tmp_path / "theirs.pt"
    shapes = {"input_shape": [999, 20, 20], "output_shape": [997, 16, 16]}
    document["teacher"] = {"kind": "torchscript", "module": str(module), **shapes, "offsets": OFFSETS}
    document["student"]["distillation"] = {"offsets": OFFSETS}
    config.write_text(json.dumps(document))
    assert_refused(tmp_path, "teacher.module: there is no file", "distill", config, *options)
    module.touch()
    assert_refused(tmp_path, "student.training.patch_shape: the teacher takes", "distill", config, *options)


@BOTH
def test_affinities_that_are_not_there(tmp_path: Path, options: tuple[str, ...]) -> None:
    config = taught_config(tmp_path, paths=["/nowhere/a.zarr"])
    assert_refused(tmp_path, "teacher.affinities.s.paths", "distill", config, *options)


@BOTH
def test_a_dataset_of_affinities_that_is_not_there(tmp_path: Path, options: tuple[str, ...]) -> None:
    config = taught_config(tmp_path, paths=[str(stored_affinities(tmp_path, OFFSETS))], dataset="nosuch")
    assert_refused(tmp_path, "nosuch", "distill", config, *options)


@BOTH
def test_affinities_without_a_channel_that_the_student_needs(tmp_path: Path, options: tuple[str, ...]) -> None:
    config = taught_config(tmp_path, paths=[str(stored_affinities(tmp_path, OFFSETS[:2]))])
    assert_refused(tmp_path, "teacher.affinities.s: no channel tells of [0, 0, -1]", "distill", config, *options)


@BOTH
def test_affinities_of_another_extent_than_raw(tmp_path: Path, options: tuple[str, ...]) -> None:
    config = taught_config(tmp_path, paths=[str(stored_affinities(tmp_path, OFFSETS, (24, 70, 64)))])
    assert_refused(tmp_path, "but", "distill", config, *options)


@BOTH
@pytest.mark.parametrize("step", ["run", "predict"])
def test_a_student_that_is_not_there_and_is_not_to_be_trained(
    tmp_path: Path, step: str, options: tuple[str, ...]
) -> None:
    config = config_file(tmp_path, raw_file(tmp_path), {"train": [], "validate": None})
    assert_refused(tmp_path, "there is no checkpoint; train the network first", step, config, *options)


@BOTH
@pytest.mark.parametrize("step", ["run", "predict"])
def test_a_named_checkpoint_that_is_not_there(tmp_path: Path, step: str, options: tuple[str, ...]) -> None:
    config = config_file(tmp_path, raw_file(tmp_path), predict={"checkpoint": "nowhere.pt"})
    assert_refused(tmp_path, "predict.checkpoint: there is no checkpoint", step, config, *options)


def test_a_finished_student_needs_nothing_that_it_learnt_from(tmp_path: Path) -> None:
    config = config_file(tmp_path, raw_file(tmp_path))
    assert call("distill", str(config)).status == 0
    (tmp_path / "volume.h5").unlink()
    called = call("distill", str(config), "--dry-run")
    assert called.status == 0, called


def raw_to_segment(folder: Path, kind: str, dtype: str) -> None:
    """A config that segments raw without labels with a ready-made student."""
    source = raw_file(folder, labelled=False, dtype=dtype)
    if kind == "zarr":
        with h5py.File(source) as file:
            array = zarr.open_group(str(folder / "volume.zarr"), mode="w").create_dataset("raw", data=file["raw"][:])
        array.attrs["resolution"], source = [40, 8, 8], folder / "volume.zarr"
    volumes = {"sources": {"s": {"kind": "file", "path": str(source)}}, "segment": {"source": "s"}}
    predict = {"checkpoint": "pretrained:fibsem-10nm", "block_size": [12, 64, 64]}
    document = {"run_directory": "run", "volumes": volumes, "predict": predict}
    (folder / "mine.json").write_text(json.dumps(document))


@pytest.mark.parametrize(("kind", "dtype"), [("hdf5", "uint8"), ("hdf5", "uint16"), ("zarr", "uint8")])
def test_blocks_are_planned_before_an_import_as_after_it(tmp_path: Path, kind: str, dtype: str) -> None:
    raw_to_segment(tmp_path, kind, dtype)

    def told_by(script: str, *options: str) -> list[str]:
        command = [sys.executable, str(WORKFLOWS / script), "mine.json", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr.splitlines()

    def of_blocks(lines: list[str]) -> list[str]:
        begin = next(index for index, line in enumerate(lines) if line.startswith("predict: there is no output; "))
        assert lines[-1].startswith("disk: at most")
        return lines[begin:-1]

    scripts = ("02_predict_blockwise.py", "run_all.py")
    before = [told_by(script, "--dry-run") for script in scripts]
    assert not (tmp_path / "run").exists()
    told_by("import_data.py")
    after = [told_by(script, "--dry-run") for script in scripts]
    assert [of_blocks(lines) for lines in before] == [of_blocks(lines) for lines in after]
    assert any(line.startswith("segment_0.70: there is no output; ") for line in before[1])
    for one, other in zip(before, after, strict=True):
        counts_the_copy = one[-1].partition(" of arrays")[0] != other[-1].partition(" of arrays")[0]
        assert counts_the_copy == (kind == "hdf5")


@pytest.mark.parametrize("user_has", ["scripts", "emdistill"])
def test_before_a_download_the_dry_run_says_what_to_type(
    tmp_path: Path, user_has: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_to_segment(tmp_path, "hdf5", "uint8")
    document = json.loads((tmp_path / "mine.json").read_text())
    document["volumes"]["sources"] = {
        name: {"kind": "public", "name": "ac3"} for name in document["volumes"]["sources"]
    }
    (tmp_path / "mine.json").write_text(json.dumps(document))
    monkeypatch.setenv("EMDISTILL_STARTED_WITH", user_has)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing is downloaded"))
    typed = "emdistill import mine.json" if user_has == "emdistill" else f"python {WORKFLOWS}/import_data.py mine.json"
    for script in ("02_predict_blockwise.py", "run_all.py"):
        command = [sys.executable, str(WORKFLOWS / script), "mine.json", "--dry-run"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        said = f"run `{typed}` once: it downloads the volume; then the blocks can be planned"
        assert done.stderr.splitlines()[-1] == said
