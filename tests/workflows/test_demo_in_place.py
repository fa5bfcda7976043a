"""`make demo DATA=…` on volumes as the public ones are: real EM with labels, read where it lies, nothing copied."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from stored_arrays import ngff, scale, translation, write_group, write_precomputed, write_zarr

from pipeline.config import load_config
from pipeline.run import Run, read_json
from pipeline.volumes import open_volume

ROOT = Path(__file__).parents[2]
VOXEL_SIZE = (29.94, 9.98, 9.98)
SHORT = (
    *("teacher.training.iterations=3", "student.training.iterations=3"),
    *("teacher.training.validate_every=3", "student.training.validate_every=3"),
)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ome.zarr`: OME-NGFF 0.4 of five axes and three levels, in micrometres; `precomputed`: raw and labels."""
    if "EMDISTILL_DATA" not in os.environ:
        pytest.skip("EMDISTILL_DATA does not name a folder of real data")
    folder = tmp_path_factory.mktemp("volumes")
    with h5py.File(Path(os.environ["EMDISTILL_DATA"]) / "fib25_train.h5") as file:
        raw, labels = file["raw"][:180:3], file["labels"][:180:3].astype(np.uint64)
    for place, data in (("ome.zarr", raw), ("ome.zarr/labels/cells", labels)):
        levels = {}
        for level in range(3):
            step = 2**level
            chunks = (1, 1, 16, 64, 64)
            write_zarr(
                folder / place / str(level), data[None, None, :, ::step, ::step], chunks=chunks, dimension_separator="/"
            )
            levels[str(level)] = [
                scale(1, 1, 0.02994, 0.00998 * step, 0.00998 * step),
                translation(0, 0, 1.5, 0.25, 0.1),
            ]
        write_group(folder / place, ngff(levels, axes="tczyx"))
    write_group(folder / "ome.zarr" / "labels", {"labels": ["cells"]})
    for name, data in (("raw", raw), ("labels", labels)):
        place = str(folder / "precomputed" / name)
        write_precomputed(Path(place), data, resolution=VOXEL_SIZE[::-1], voxel_offset=(10, 25, 50))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "offset"), [("ome.zarr", (1500.0, 250.0, 100.0)), ("precomputed", (1497.0, 249.5, 99.8))]
)
def test_public_volumes_are_segmented_where_they_are(
    tmp_path: Path, volumes: Path, name: str, offset: tuple[float, float, float]
) -> None:
    options = [part for setting in (f"run_directory={tmp_path / 'run'}", *SHORT) for part in ("--set", setting)]
    script = [sys.executable, str(ROOT / "workflows" / "run_all.py"), str(ROOT / "configs" / "demo.json")]
    done = subprocess.run([*script, "--data", name, *options], cwd=volumes, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "60 x 250 x 250 voxels of 29.94 x 9.98 x 9.98 nm" in done.stderr and "read in place" in done.stderr
    run = Run(load_config(tmp_path / "run" / "config.json", []))
    levels = {path.name for path in (run.volume.file / "raw").iterdir() if path.is_dir()}
    assert "s1" in levels and "s0" not in levels, "coarser levels of raw, which itself was not copied"
    assert not (run.volume.file / "labels").exists()
    assert not list((run.directory / "sources").glob("*.zarr"))
    segmentation = open_volume(run.volume, f"segmentation/{run.segmentation_names()[0]}")
    assert segmentation.voxel_size == pytest.approx(VOXEL_SIZE) and segmentation.offset == pytest.approx(offset)
    assert read_json(run.summary)["best"]["scored"] > 10**6
    assert (run.directory / "report.html").stat().st_size > 10**5
