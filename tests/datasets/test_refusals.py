"""Whatever is ambiguous or unusable is refused with one line that names the config key, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from imported_sources import import_source
from stored_arrays import write_n5

from pipeline.config import FileSource, PublicSource, parse_config
from pipeline.datasets.importing import imported_identity
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.stages.importing import ensure_imported

RAW = np.zeros((4, 8, 8), np.uint8)
LABELS = np.ones((4, 8, 8), np.uint64)
SIZE = {"voxel_size": [40, 4, 4]}
COLOURS = np.random.default_rng(0).integers(0, 2**16, (3, 256), np.uint16)

Maker = Callable[[Path], dict[str, Any]]


def hdf5(attributes: dict[str, Any] | None = None, fields: dict[str, Any] | None = None, **data: np.ndarray) -> Maker:
    """A maker of an HDF5 file; returns the fields of a source that names it."""

    def make(folder: Path) -> dict[str, Any]:
        with h5py.File(folder / "a.h5", "w") as file:
            file.attrs.update(SIZE if attributes is None else attributes)
            for name, array in data.items():
                file[name.replace("__", "/")] = array
        return {"path": str(folder / "a.h5"), **(fields or {})}

    return make


def tiffs(*names: str, shape: tuple[int, ...] = (8, 8)) -> Maker:
    """A maker of a folder of TIFF files with these names."""

    def make(folder: Path) -> dict[str, Any]:
        for name in names:
            tifffile.imwrite(folder / name, np.zeros(shape, np.uint8))
        return {"path": str(folder), "voxel_size": (40, 4, 4)}

    return make


def tiff(array: np.ndarray, **options: Any) -> Maker:
    """A maker of one TIFF file."""

    def make(folder: Path) -> dict[str, Any]:
        tifffile.imwrite(folder / "a.tif", array, **{"photometric": "minisblack", **options})
        return {"path": str(folder / "a.tif"), "voxel_size": (40, 4, 4)}

    return make


def sections_of_two_sizes(folder: Path) -> dict[str, Any]:
    tifffile.imwrite(folder / "z2.tif", np.zeros((9, 8), np.uint8))
    return tiffs("z1.tif")(folder)


def text_file(folder: Path) -> dict[str, Any]:
    (folder / "a.h5").write_text("no HDF5")
    return {"path": str(folder / "a.h5")}


def truncated_tiff(folder: Path) -> dict[str, Any]:
    tifffile.imwrite(folder / "a.tif", RAW)
    (folder / "a.tif").write_bytes((folder / "a.tif").read_bytes()[:6])
    return {"path": str(folder / "a.tif"), "voxel_size": (40, 4, 4)}


def several_volumes(folder: Path) -> dict[str, Any]:
    with tifffile.TiffWriter(folder / "a.tif") as file:
        for volume in (RAW, RAW[:3]):
            file.write(volume, photometric="minisblack")
    return {"path": str(folder / "a.tif"), "voxel_size": (40, 4, 4)}


def tiff_that_ends_early(folder: Path) -> dict[str, Any]:
    fields = tiff(RAW)(folder)
    (folder / "a.tif").write_bytes((folder / "a.tif").read_bytes()[:-100])
    return fields


def zarr_of_format_3(folder: Path) -> dict[str, Any]:
    (folder / "a.zarr").mkdir()
    (folder / "a.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    return {"path": str(folder / "a.zarr"), "raw": "raw"}


def n5_with_axes(folder: Path) -> dict[str, Any]:
    write_n5(folder / "a.n5" / "raw", RAW, {"resolution": [4, 4, 40], "axes": ["z", "y", "x"]})
    return {"path": str(folder / "a.n5")}


NEGATIVE = LABELS.astype(np.int32)
NEGATIVE[3, 7, 7] = -1
WITH_NAN = np.full((4, 8, 8), np.nan, np.float32)

CASES: dict[str, tuple[Maker, str, str]] = {
    "no such file": (lambda folder: {"path": str(folder / "none.h5")}, "path", "no file"),
    "unset variable": (lambda folder: {"path": "${NOT_SET_HERE}/a.h5"}, "path", "NOT_SET_HERE"),
    "unknown kind": (text_file, "path", "no TIFF stack, HDF5"),
    "damaged tiff": (truncated_tiff, "path", "cannot be opened"),
    "tiff that ends early": (tiff_that_ends_early, "path", "cannot be opened"),
    "zarr format 3": (zarr_of_format_3, "raw", "no dataset 'raw'"),
    "empty folder": (lambda folder: {"path": str(folder)}, "path", "no TIFF files"),
    "no voxel size": (hdf5({}, raw=RAW), "voxel_size", "does not say its voxel size"),
    "tiff without voxel size": (lambda f: {"path": tiff(RAW)(f)["path"]}, "voxel_size", "does not say"),
    "voxel size of zero": (hdf5({"voxel_size": [40, 4, 0]}, raw=RAW), "voxel_size", "no voxel size"),
    "voxel size of NaN": (hdf5({"voxel_size": [40, 4, np.nan]}, raw=RAW), "voxel_size", "no vector of numbers"),
    "voxel size of two numbers": (
        hdf5({"voxel_size": [4, 4]}, raw=RAW),
        "voxel_size",
        "2 numbers for an array of 3 axes",
    ),
    "contradictory voxel sizes": (
        hdf5({"voxel_size": [40, 4, 4], "resolution": [4, 4, 40]}, raw=RAW),
        "voxel_size",
        "states two values",
    ),
    "unknown unit": (hdf5({**SIZE, "units": "furlong"}, raw=RAW), "voxel_size", "furlong"),
    "unknown axes": (hdf5({**SIZE, "axes": "tyx"}, raw=RAW), "axes", "z, y and x once each"),
    "wrong axes in the config": (hdf5(fields={"axes": "zzy"}, raw=RAW), "axes", "z, y and x once each"),
    "axes of n5": (n5_with_axes, "axes", "set axes"),
    "missing dataset": (hdf5(fields={"raw": "volumes/raw"}, raw=RAW), "raw", "it has raw"),
    "missing labels": (hdf5(fields={"labels": "seg"}, raw=RAW), "labels", "no dataset 'seg'"),
    "missing mask": (hdf5(fields={"mask": "m"}, raw=RAW), "mask", "no dataset 'm'"),
    "no candidate": (hdf5(image=RAW, other=RAW), "raw", "image, other"),
    "several candidates": (hdf5(raw=RAW, main=RAW), "raw", "several candidates (raw, main)"),
    "several label candidates": (hdf5(raw=RAW, labels=LABELS, stack=LABELS), "labels", "several candidates"),
    "raw taken for labels": (hdf5(fields={"labels": "raw"}, raw=RAW), "labels", "both raw and labels"),
    "shape mismatch": (hdf5(raw=RAW, labels=LABELS[:, :7]), "labels", "(4, 7, 8)"),
    "mask of another shape": (hdf5(fields={"mask": "m"}, raw=RAW, m=RAW[:3]), "mask", "(3, 8, 8)"),
    "two dimensions": (hdf5(raw=RAW[0]), "axes", "has 2 axes"),
    "four dimensions": (hdf5(raw=RAW[None]), "axes", "has 4 axes"),
    "no voxels": (hdf5(raw=RAW[:0]), "lab", "no voxels"),
    "raw of double precision": (hdf5(raw=RAW.astype(np.float64)), "raw", "float16 or float32"),
    "raw with NaN": (hdf5(raw=WITH_NAN), "raw", "NaN"),
    "raw of 32 bits": (hdf5(raw=RAW.astype(np.int32)), "raw", "uint16, int8, int16"),
    "float labels": (hdf5(raw=RAW, labels=LABELS.astype(np.float64)), "labels", "whole numbers"),
    "bool labels": (hdf5(raw=RAW, labels=LABELS > 0), "labels", "whole numbers"),
    "float mask": (hdf5(fields={"mask": "m"}, raw=RAW, m=WITH_NAN), "mask", "whole numbers or bool"),
    "negative labels": (hdf5(raw=RAW, labels=NEGATIVE), "labels", "negative"),
    "table of bodies of a wrong shape": (
        hdf5(raw=RAW, stack=LABELS, transforms=np.ones((2, 3))),
        "stack",
        "rows of two numbers",
    ),
    "supervoxel without a body": (
        hdf5(raw=RAW, stack=LABELS, transforms=np.array([[7, 1]])),
        "stack",
        "not in the table",
    ),
    "tiff with a volume in a page": (
        tiff(np.zeros((8, 32, 32), np.uint8), volumetric=True, tile=(8, 16, 16)),
        "path",
        "8 sections, but 1 page;",
    ),
    "tiff of several volumes": (several_volumes, "path", "2 images of different kinds"),
    "gap": (tiffs("z1.tif", "z2.tif", "z4.tif"), "path", "section 3 is missing"),
    "unpadded numbers": (tiffs(*(f"z{i}.tif" for i in range(1, 12))), "path", "pad them with zeros to 2 digits"),
    "duplicate section": (tiffs("z1.tif", "z1.tiff"), "path", "exists twice"),
    "same number in two widths": (tiffs("z1.tif", "z01.tif"), "path", "exists twice"),
    "no numbers": (tiffs("first.tif"), "path", "no section number"),
    "several stacks": (tiffs("raw1.tif", "seg1.tif"), "path", "several names"),
    "two numbers differ": (tiffs("t1_z1.tif", "t2_z2.tif"), "path", "several numbers differ"),
    "colour sections": (tiffs("z1.tif", shape=(8, 8, 3)), "path", "one grey section"),
    "sections of two sizes": (sections_of_two_sizes, "path", "sections must be alike"),
    "single page": (tiff(RAW[0]), "path", "three axes"),
    "colour stack": (tiff(np.zeros((4, 8, 8, 3), np.uint8), photometric="rgb"), "path", "three axes"),
    "tiff whose 0 is white": (tiff(RAW, photometric="miniswhite"), "path", "0 is white"),
    "tiff of colours": (tiff(RAW, photometric="palette", colormap=COLOURS), "path", "colours of a palette"),
    "labels inside a tiff": (lambda f: {**tiff(RAW)(f), "labels": "labels"}, "labels", "labels_path"),
    "dataset inside a tiff": (lambda f: {**tiff(RAW)(f), "raw": "raw"}, "raw", "no datasets"),
    "missing labels file": (lambda f: {**tiff(RAW)(f), "labels_path": str(f / "none.tif")}, "labels_path", "no file"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_with_one_line(case: str, tmp_path: Path) -> None:
    make, key, message = CASES[case]
    (tmp_path / "data").mkdir()
    source = FileSource(**make(tmp_path / "data"))
    container = tmp_path / "run" / "volume.zarr"
    with pytest.raises(UserError) as caught:
        import_source("lab", source, container, (2, 8, 8))
    assert message in str(caught.value)
    assert key in caught.value.where
    assert "\n" not in str(caught.value)
    assert imported_identity(container) is None, "a refused import counts as none"


def test_labels_that_lie_elsewhere_than_raw(tmp_path: Path) -> None:
    """The padded CREMI files: same attributes, but the labels cover only the middle."""
    path = hdf5(raw=RAW, labels=LABELS)(tmp_path)["path"]
    with h5py.File(path, "a") as file:
        file["labels"].attrs["offset"] = [1520, 3644, 3644]
    with pytest.raises(UserError, match=r"lab\.offset: .*crop them"):
        import_source("lab", FileSource(path=path), tmp_path / "volume.zarr", (2, 8, 8))


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.update(SIZE)
        noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32), dtype=np.uint8)
        dataset = file.create_dataset("raw", data=noise, chunks=(4, 32, 32), compression="gzip")
        start = dataset.id.get_chunk_info(1).byte_offset
    with (tmp_path / "a.h5").open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 200)
    with pytest.raises(UserError, match=r"a\.h5/raw: a chunk in voxels \(4, 0, 0\) to \(8, 32, 32\) cannot be read"):
        import_source("lab", FileSource(path=str(tmp_path / "a.h5")), tmp_path / "volume.zarr", (4, 32, 32))


def test_unknown_public_data_set_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"volumes\.sources\.lab\.name: .*cremi_a.*fib25.*isbi2012.*snemi3d"):
        import_source("lab", PublicSource(kind="public", name="cremi_z"), tmp_path / "volume.zarr", (2, 8, 8))


@pytest.mark.parametrize("name", ["validate", "test"])
def test_a_region_that_is_scored_later_must_lie_in_its_source(tmp_path: Path, name: str) -> None:
    """Or everything would be computed before the scores tell."""
    regions = {"validate": {"source": "a", "end": [2, 8, 8]}, "test": {"source": "a", "begin": [2, 0, 0]}}
    source = {"kind": "phantom", "shape": [4, 16, 16]}
    volumes = {"sources": {"a": source}, "segment": {"source": "a"}, **regions}
    volumes[name] = {**regions[name], "end": [2 if name == "validate" else 4, 99, 16]}
    student = {"network": {"name": "section_unet"}, "distillation": None}
    run = Run(parse_config({"run_directory": str(tmp_path), "volumes": volumes, "student": student}))
    with pytest.raises(UserError, match=rf"^volumes\.{name}: the region .* reaches beyond the source of"):
        ensure_imported(run)
