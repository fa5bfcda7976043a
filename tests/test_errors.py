"""Every mistake that a user can make gets one line that names the place and the cure, and exit status 2."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.config import load_config
from pipeline.networks import build_network, save_checkpoint
from pipeline.run import Run
from pipeline.stages.importing import ensure_imported

WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"
TINY_NETWORK = {"name": "section_unet", "sections": 3, "widths": [2, 4]}
Document = dict[str, Any]


@dataclass(frozen=True)
class Mistake:
    """One way to get it wrong.

    Attributes:
        script: workflow script that is run.
        expected: texts that the one line must contain: where it is, and what is wrong or right.
        overrides: `--set` arguments.
        prepare: makes the mistake in the run directory or in the folder beside it.
        arguments: further arguments.
    """

    script: str
    expected: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    prepare: Callable[[Path], None] = lambda folder: None
    arguments: tuple[str, ...] = ()


def base_document(folder: Path) -> Document:
    """A tiny run on the phantom that every script accepts."""
    return {
        "run_directory": str(folder / "run"),
        "volumes": {
            "sources": {"tiny": {"kind": "phantom", "shape": [10, 32, 32], "block_shape": [10, 32, 32]}},
            "train": [{"source": "tiny", "z_share": [0.0, 0.7]}],
            "validate": {"source": "tiny", "z_share": [0.7, 1.0]},
            "segment": {"source": "tiny"},
        },
        "teacher": {"network": TINY_NETWORK, "training": {"iterations": 1, "patch_shape": [5, 32, 32]}},
        "student": {"network": TINY_NETWORK, "training": {"iterations": 1, "patch_shape": [5, 32, 32]}},
        "targets": {"offsets": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]},
        "predict": {"block_size": [5, 16, 16]},
        "cluster": {"executor": "serial"},
    }


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `config.json` and an imported run, to be copied."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "config.json").write_text(json.dumps(base_document(folder)))
    ensure_imported(Run(load_config(folder / "config.json")))
    return folder


@pytest.fixture
def lab_folder(imported: Path, tmp_path: Path) -> Path:
    """A copy of the imported run that a test may spoil."""
    folder = tmp_path / "lab_folder"
    shutil.copytree(imported, folder)
    (folder / "config.json").write_text(json.dumps(base_document(folder)))
    return folder


def write_hdf5(folder: Path, name: str, **arrays: np.ndarray) -> Path:
    """An HDF5 file with some datasets and no attributes."""
    path = folder / name
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file[key.replace("__", "/")] = values
    return path


def file_source(**fields: Any) -> Callable[[Path], None]:
    """Make the run's source a file; paths are relative to the lab_folder."""

    def prepare(folder: Path) -> None:
        document = json.loads((folder / "config.json").read_text())
        shutil.rmtree(folder / "run")
        chosen = {key: str(folder / value) if key.endswith("path") else value for key, value in fields.items()}
        document["volumes"]["sources"]["tiny"] = {"kind": "file", **chosen}
        (folder / "config.json").write_text(json.dumps(document))

    return prepare


def with_file(write: Callable[[Path], object], **fields: Any) -> Callable[[Path], None]:
    """Write a file into the lab_folder, and make it the run's source."""

    def prepare(folder: Path) -> None:
        write(folder)
        file_source(**fields)(folder)

    return prepare


def random_raw(shape: tuple[int, ...] = (10, 32, 32)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)


def raw_and_labels(labels: np.ndarray) -> Callable[[Path], object]:
    return lambda folder: write_hdf5(folder, "v.h5", raw=random_raw(), labels=labels)


def broken_config(text: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / "config.json").write_text(text)

    return prepare


def student_of(widths: list[int]) -> Callable[[Path], None]:
    """Give the run a checkpoint of a student with other widths."""

    def prepare(folder: Path) -> None:
        network = build_network({**TINY_NETWORK, "widths": widths})
        (folder / "run" / "student").mkdir()
        save_checkpoint(folder / "run" / "student" / "checkpoint_0000001.pt", network, 1, {})

    return prepare


def deep_student(folder: Path) -> None:
    """A checkpoint of a student whose context is larger than the volume."""
    network = build_network({**TINY_NETWORK, "widths": [2, 2, 2, 2]})
    save_checkpoint(folder / "run" / "student" / "checkpoint_0000001.pt", network, 1, {})


def truncated_checkpoint(folder: Path) -> None:
    student_of([2, 4])(folder)
    path = folder / "run" / "student" / "checkpoint_0000001.pt"
    path.write_bytes(path.read_bytes()[:100])


def run_directory_is_a_file(folder: Path) -> None:
    shutil.rmtree(folder / "run")
    (folder / "run").write_text("in the way")


def no_labels(folder: Path) -> None:
    shutil.rmtree(folder / "run" / "volume.zarr" / "labels")


VOXEL_SIZE = {"voxel_size": [40, 8, 8]}
LABELS = np.ones((10, 32, 32), np.uint16)

MISTAKES = {
    "config is not there": Mistake("import_data.py", ("nowhere.json", "no such config"), arguments=("nowhere.json",)),
    "config is no JSON": Mistake("import_data.py", ("config.json", "line 1"), prepare=broken_config("{,}")),
    "config is a list": Mistake("import_data.py", ("config.json", "JSON object"), prepare=broken_config("[]")),
    "typo in a section": Mistake("import_data.py", ("studnt", "did you mean 'student'"), ("studnt={}",)),
    "typo in a key": Mistake(
        "02_predict_blockwise.py", ("predict.blocksize", "did you mean 'block_size'"), ("predict.blocksize=[1,1,1]",)
    ),
    "text for a number": Mistake("01_distill.py", ("seed", "whole number"), ('seed="one"',)),
    "number out of range": Mistake("01_distill.py", ("cluster.workers", "> 0"), ("cluster.workers=0",)),
    "too few values": Mistake("02_predict_blockwise.py", ("predict.block_size", "3"), ("predict.block_size=[4,4]",)),
    "unknown choice": Mistake("04_agglomerate.py", ("agglomerate.method", "waterz"), ('agglomerate.method="magic"',)),
    "unknown executor": Mistake("04_agglomerate.py", ("cluster.executor", "local"), ('cluster.executor="cloud"',)),
    "unknown network": Mistake("01_distill.py", ("student.network", "mala_tiny"), ('student.network.name="resnet"',)),
    "unknown kind of source": Mistake(
        "import_data.py", ("volumes.sources.tiny", "phantom"), ('volumes.sources.tiny.kind="url"',)
    ),
    "region of an unknown source": Mistake(
        "import_data.py", ("volumes", "'big'", "tiny"), ('volumes.segment.source="big"',)
    ),
    "region beyond the source": Mistake(
        "02_predict_blockwise.py",
        ("volumes.segment", "(10, 32, 32)"),
        ("volumes.segment.end=[11,32,32]",),
        prepare=student_of([2, 4]),
    ),
    "distilling without a teacher": Mistake("01_distill.py", ("teacher",), ("teacher=null",)),
    "override without a value": Mistake("import_data.py", ("--set", "dotted.key=value"), ("seed",)),
    "override below a value": Mistake("import_data.py", ("run_directory.low",), ("run_directory.low=1",)),
    "missing file": Mistake(
        "import_data.py", ("volumes.sources.tiny.path", "gone.h5"), prepare=file_source(path="gone.h5", **VOXEL_SIZE)
    ),
    "missing dataset": Mistake(
        "import_data.py",
        ("volumes.sources.tiny.raw", "images"),
        prepare=with_file(
            lambda f: write_hdf5(f, "v.h5", images=random_raw()), path="v.h5", raw="volumes/raw", **VOXEL_SIZE
        ),
    ),
    "missing voxel size": Mistake(
        "import_data.py",
        ("volumes.sources.tiny.voxel_size",),
        prepare=with_file(lambda f: write_hdf5(f, "v.h5", raw=random_raw()), path="v.h5"),
    ),
    "labels of another shape": Mistake(
        "import_data.py",
        ("volumes.sources.tiny.labels", "(9, 32, 32)"),
        prepare=with_file(raw_and_labels(LABELS[:9]), path="v.h5", **VOXEL_SIZE),
    ),
    "float labels": Mistake(
        "import_data.py",
        ("volumes.sources.tiny.labels", "float"),
        prepare=with_file(raw_and_labels(LABELS.astype(np.float32)), path="v.h5", **VOXEL_SIZE),
    ),
    "negative labels": Mistake(
        "import_data.py",
        ("volumes.sources.tiny.labels", "negative"),
        prepare=with_file(raw_and_labels(-LABELS.astype(np.int32)), path="v.h5", **VOXEL_SIZE),
    ),
    "raw with NaN": Mistake(
        "import_data.py",
        ("volumes.sources.tiny.raw", "NaN"),
        prepare=with_file(
            lambda f: write_hdf5(f, "v.h5", raw=np.full((10, 32, 32), np.nan, np.float32)), path="v.h5", **VOXEL_SIZE
        ),
    ),
    "unknown public data set": Mistake(
        "import_data.py",
        ("volumes.sources.tiny.name", "cremi"),
        ('volumes.sources.tiny={"kind":"public","name":"cortexx"}',),
        prepare=lambda folder: shutil.rmtree(folder / "run"),
    ),
    "run directory is a file": Mistake("import_data.py", ("run",), prepare=run_directory_is_a_file),
    "training without labels": Mistake(
        "00_train_teacher.py", ("volumes.train.0", "'tiny' has no labels"), prepare=no_labels
    ),
    "training on mixed voxel sizes": Mistake(
        "00_train_teacher.py",
        ("volumes.train.1", "30 x 8 x 8 nm", "40 x 8 x 8 nm"),
        (
            'volumes.sources.fine={"kind":"phantom","shape":[10,32,32],"voxel_size":[30,8,8]}',
            'volumes.train=[{"source":"tiny","z_share":[0.0,0.7]},{"source":"fine"}]',
        ),
    ),
    "patch larger than the volume": Mistake(
        "00_train_teacher.py", ("patch_shape", "7"), ("teacher.training.patch_shape=[9,64,64]",)
    ),
    "patch that the network cannot take": Mistake(
        "00_train_teacher.py",
        ("teacher.training.patch_shape", "(5, 32, 32)"),
        ("teacher.training.patch_shape=[5,31,31]",),
    ),
    "unknown layer to distil": Mistake(
        "01_distill.py", ("student.distillation.layers", "decoder_0"), ('student.distillation.layers=["top"]',)
    ),
    "teacher checkpoint is not there": Mistake(
        "01_distill.py", ("teacher.checkpoint", "gone.pt"), ('teacher.checkpoint="gone.pt"',)
    ),
    "no checkpoint": Mistake("02_predict_blockwise.py", ("student", "no checkpoint", "train")),
    "checkpoint of another network": Mistake(
        "02_predict_blockwise.py", ("checkpoint_0000001.pt", "widths"), prepare=student_of([3, 4])
    ),
    "truncated checkpoint": Mistake(
        "02_predict_blockwise.py", ("checkpoint_0000001.pt",), prepare=truncated_checkpoint
    ),
    "volume smaller than the context": Mistake(
        "02_predict_blockwise.py",
        ("volumes.sources.tiny", "(10, 32, 32)", "context"),
        ('student.network={"name":"section_unet","sections":3,"widths":[2,2,2,2]}',),
        prepare=deep_student,
    ),
    "fragments before affinities": Mistake(
        "03_extract_fragments.py", ("02_predict_blockwise.py",), prepare=student_of([2, 4])
    ),
    "unknown graph store": Mistake(
        "04_agglomerate.py", ("rag.url", "sqlite"), ('rag.url="oracle://host/rag"',), prepare=student_of([2, 4])
    ),
    "scores of a volume that is not there": Mistake(
        "06_evaluate.py", ("gone.zarr",), arguments=("--prediction", "gone.zarr/a", "--labels", "gone.zarr/b")
    ),
}


def run_script(mistake: Mistake, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a workflow script in this process, as `python workflows/…` would."""
    monkeypatch.chdir(folder)
    overrides = [f"--set={override}" for override in mistake.overrides]
    monkeypatch.setattr(sys, "argv", [mistake.script, *mistake.arguments, *overrides])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(WORKFLOWS / mistake.script), run_name="__main__")
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", MISTAKES)
def test_one_line_and_status_2(
    name: str, lab_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mistake = MISTAKES[name]
    mistake.prepare(lab_folder)
    status = run_script(mistake, lab_folder, monkeypatch)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert status == 2
    assert len(lines) == 1
    for text in mistake.expected:
        assert text in lines[0]


def test_debug_keeps_the_traceback(lab_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab_folder)
    monkeypatch.setattr(sys, "argv", ["import_data.py", "nowhere.json", "--debug"])
    with pytest.raises(Exception, match="no such config"):
        runpy.run_path(str(WORKFLOWS / "import_data.py"), run_name="__main__")
