"""Files of others, of every format, damaged or made to do harm: they are read, or one line says what is wrong."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from mutations import damaged
from script_calls import Called, call
from script_logging import keep_logging  # noqa: F401  a fixture for all tests here
from stored_arrays import ngff, raw_voxels, scale, write_group, write_n5, write_precomputed, write_zarr, write_zarr3

RAW = raw_voxels()
PLACE = {"voxel_size": [40, 8, 8], "offset": [0, 0, 0], "units": "nm", "axes": "zyx"}


def zarr2(path: Path) -> Path:
    write_zarr(path / "raw", RAW, PLACE)
    return path


def zarr3(path: Path) -> Path:
    write_zarr3(path / "raw", RAW, PLACE, names=("z", "y", "x"))
    return path


def ome_zarr(path: Path) -> Path:
    write_zarr(path / "raw" / "s0", RAW)
    write_group(path / "raw", ngff({"s0": [scale(0.04, 0.008, 0.008)]}))
    return path


def n5(path: Path) -> Path:
    write_n5(path / "raw", RAW, {"resolution": [8, 8, 40], "units": ["nm", "nm", "nm"]})
    return path


def precomputed(path: Path) -> Path:
    write_precomputed(path, RAW)
    return path


def ome_tiff(path: Path) -> Path:
    sizes = {f"PhysicalSize{axis}": size for axis, size in (("Z", 0.04), ("Y", 0.008), ("X", 0.008))}
    tifffile.imwrite(path, RAW, metadata={"axes": "ZYX", **sizes}, ome=True)
    return path


def imagej_tiff(path: Path) -> Path:
    metadata = {"axes": "ZYX", "spacing": 0.04, "unit": "um"}
    tifffile.imwrite(path, RAW, imagej=True, resolution=(1 / 0.008, 1 / 0.008), metadata=metadata)
    return path


def hdf5(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("raw", data=RAW, compression="gzip")
        dataset.attrs["resolution"] = (40.0, 8.0, 8.0)
    return path


def npy(path: Path) -> Path:
    np.save(path, RAW)
    return path


FORMATS: dict[str, Callable[[Path], Path]] = {
    "zarr2.zarr": zarr2,
    "zarr3.zarr": zarr3,
    "ngff.zarr": ome_zarr,
    "a.n5": n5,
    "precomputed": precomputed,
    "ome.ome.tif": ome_tiff,
    "imagej.tif": imagej_tiff,
    "a.h5": hdf5,
    "a.npy": npy,
}
SMALL = ("zarr.json", ".zarray", ".zattrs", ".zgroup", "attributes.json", "info")


def config_for(directory: Path, source: Path, **keys: Any) -> Path:
    """A config that imports a source."""
    section = {"kind": "file", "path": str(source), "voxel_size": [40, 8, 8] if source.suffix == ".npy" else None}
    document = {
        "run_directory": str(directory / "run"),
        "volumes": {"sources": {"a": {**section, **keys}}, "segment": {"source": "a"}, "import_block": [8, 16, 16]},
        "student": {"network": {"name": "section_unet"}, "distillation": None},
        "cluster": {"executor": "serial"},
    }
    (directory / "config.json").write_text(json.dumps(document))
    return directory / "config.json"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound file of every format, each of which can be imported."""
    folder = tmp_path_factory.mktemp("sources")
    for name, make in FORMATS.items():
        make(folder / name)
        called = call("import", str(config_for(folder, folder / name)), "--dry-run")
        assert (called.status, called.complaint()) == (0, ""), (name, called)
    return folder


def fuzz(directory: Path, sources: Path, cases: int, seed: str) -> None:
    """Damage a file of a source, and import it or say what that would do, many times."""
    wrong = []
    for number in range(cases):
        chance = random.Random(f"{seed} {number}")
        name = chance.choice(list(FORMATS))
        source = directory / name
        for left in (source, directory / "run"):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        original = sources / name
        shutil.copytree(original, source) if original.is_dir() else shutil.copy(original, source)
        files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        told = [path for path in files if path.name in SMALL]
        path = chance.choice(told if told and chance.random() < 0.8 else files)
        path.write_bytes(damaged(path.read_bytes(), chance))
        options = ["--dry-run"] if chance.random() < 0.5 else []
        complaint = call("import", str(config_for(directory, source)), *options).complaint()
        if complaint:
            wrong.append(f"case {seed} {number}, {path.relative_to(directory)}, {options}: {complaint}")
    assert not wrong, f"{len(wrong)} of {cases} attacks:\n" + "\n".join(wrong)


def test_damaged_sources_of_every_format_are_told(tmp_path: Path, sources: Path) -> None:
    fuzz(tmp_path, sources, 50, "short")


@pytest.mark.slow
def test_many_damaged_sources_of_every_format_are_told(tmp_path: Path, sources: Path) -> None:
    fuzz(tmp_path, sources, 400, "long")


PIXELS = '<Pixels PhysicalSizeX="{x}" PhysicalSizeY="0.008" PhysicalSizeZ="0.04" '
PIXELS += 'DimensionOrder="XYZCT" Type="uint8" SizeC="1" SizeT="1" '
PIXELS += f'SizeZ="{RAW.shape[0]}" SizeY="{RAW.shape[1]}" SizeX="{RAW.shape[2]}"><TiffData/></Pixels>'
OME = '<?xml version="1.0"?>{kind}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image>{pixels}</Image></OME>'
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha" * 10}">' for n in range(10))


def import_ome(directory: Path, xml: str) -> Called:
    """Look at a TIFF file with such a description."""
    path = directory / "a.ome.tif"
    tifffile.imwrite(path, RAW, photometric="minisblack", description=xml.encode(), metadata=None)
    return call("import", str(config_for(directory, path)), "--dry-run")


@pytest.mark.parametrize(
    "xml",
    [
        OME.format(kind="", pixels=PIXELS.format(x="0.008"))[:-20],
        OME.format(kind="", pixels=PIXELS.format(x="1e999999999")),
        OME.format(kind="", pixels=PIXELS.format(x="9" * 5000)),
        OME.format(kind="", pixels=PIXELS.format(x="-1")),
        OME.format(kind="", pixels=PIXELS.format(x="nan")),
        OME.format(kind="", pixels=PIXELS.format(x="1/0")),
        OME.format(kind=f"<!DOCTYPE OME [{LAUGHS}]>", pixels=PIXELS.format(x="&l9;")),
        OME.format(kind='<!DOCTYPE OME [<!ENTITY x SYSTEM "file:///etc/hostname">]>', pixels=PIXELS.format(x="&x;")),
        OME.format(kind="", pixels="<a>" * 20_000),
    ],
    ids=["cut", "huge exponent", "5,000 digits", "negative", "nan", "1/0", "bomb", "file of the system", "deep"],
)
def test_ome_xml_that_is_malformed_or_means_harm_is_one_line(tmp_path: Path, xml: str) -> None:
    called = import_ome(tmp_path, xml)
    assert called.complaint() == "" and called.status == 2, called
    assert "voxel_size" in called.told[-1] or "cannot be opened as TIFF" in called.told[-1]
