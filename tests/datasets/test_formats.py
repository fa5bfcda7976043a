"""Every format arrives voxel for voxel, with voxel size, offset and axes as the file or the config says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from funlib.geometry import Coordinate
from imported_sources import import_source
from stored_arrays import write_n5

from pipeline.config import FileSource, PhantomSource
from pipeline.datasets import Phantom
from pipeline.volumes import Box, RunVolume, open_volume

BLOCK = (4, 16, 16)
Import = Callable[..., dict[str, RunVolume]]


def hdf5(path: Path, attributes: dict[str, Any] | None = None, **datasets: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes or {})
        for name, data in datasets.items():
            file.create_dataset(name.replace("__", "/"), data=data, compression="gzip")
    return path


def assert_arrived(volumes: dict[str, Any], raw: np.ndarray, labels: np.ndarray | None = None) -> None:
    np.testing.assert_array_equal(volumes["raw"].array[:], raw)
    assert volumes["raw"].array.dtype == raw.dtype.newbyteorder("=")
    assert ("labels" in volumes) == (labels is not None)
    if labels is not None:
        np.testing.assert_array_equal(volumes["labels"].array[:], labels)
        assert volumes["labels"].array.dtype == np.uint64


def test_hdf5_with_attributes_on_the_root(
    tmp_path: Path, raw: np.ndarray, labels: np.ndarray, imported: Import
) -> None:
    path = hdf5(tmp_path / "a.h5", {"voxel_size_nm": [40, 8, 4], "axes": "zyx"}, raw=raw, labels=labels)
    volumes = imported(path)
    assert_arrived(volumes, raw, labels)
    assert volumes["raw"].voxel_size == volumes["labels"].voxel_size == Coordinate(40, 8, 4)
    assert volumes["raw"].offset == Coordinate(0, 0, 0)


def test_cremi_layout(tmp_path: Path, raw: np.ndarray, labels: np.ndarray, imported: Import) -> None:
    path = hdf5(tmp_path / "sample.hdf", volumes__raw=raw, volumes__labels__neuron_ids=labels.astype(np.uint64))
    with h5py.File(path, "a") as file:
        file["volumes/raw"].attrs["resolution"] = (40.0, 4.0, 4.0)
        file["volumes/labels/neuron_ids"].attrs["resolution"] = (40.0, 4.0, 4.0)
    volumes = imported(path)
    assert_arrived(volumes, raw, labels)
    assert volumes["raw"].voxel_size == Coordinate(40, 4, 4)


def test_axes_in_the_opposite_order_are_transposed_with_their_voxel_size(
    tmp_path: Path, raw: np.ndarray, labels: np.ndarray, imported: Import
) -> None:
    attributes = {"voxel_size": [4, 8, 40], "offset": [1, 2, 3], "axes": "xyz"}
    volumes = imported(hdf5(tmp_path / "a.h5", attributes, raw=raw.T, labels=labels.T))
    assert_arrived(volumes, raw, labels)
    assert volumes["raw"].voxel_size == Coordinate(40, 8, 4)
    assert volumes["raw"].offset == Coordinate(3, 2, 1)


def test_the_config_overrules_the_file(tmp_path: Path, raw: np.ndarray, imported: Import) -> None:
    path = hdf5(tmp_path / "a.h5", {"voxel_size": [1, 1, 1]}, raw=raw.transpose(1, 0, 2))
    volumes = imported(path, voxel_size=(50, 4, 4), offset=(100, 0, -8), axes="yzx")
    assert_arrived(volumes, raw)
    assert volumes["raw"].voxel_size == Coordinate(50, 4, 4)
    assert volumes["raw"].offset == Coordinate(100, 0, -8)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"voxel_size": [30, 6, 6]}, (30, 6, 6)),
        ({"voxel_size": [0.03, 0.006, 0.006], "units": ["um", "um", "um"]}, (30, 6, 6)),
        ({"resolution": np.array([40.0, 4.0, 4.0])}, (40, 4, 4)),
        ({"element_size_um": [0.04, 0.008, 0.008]}, (40, 8, 8)),
        ({"resolution": [40, 4, 4], "voxel_size": [40, 4, 4]}, (40, 4, 4)),
    ],
)
def test_customary_voxel_size_attributes(
    tmp_path: Path, raw: np.ndarray, imported: Import, attributes: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    assert imported(hdf5(tmp_path / "a.h5", attributes, raw=raw))["raw"].voxel_size == Coordinate(expected)


def test_mask_and_labels_of_other_files_and_types(tmp_path: Path, raw: np.ndarray, imported: Import) -> None:
    labels = np.arange(raw.size).reshape(raw.shape).astype(">i8")
    path = hdf5(tmp_path / "raw.h5", {"voxel_size": [40, 4, 4]}, main=raw.astype(">u2"), inside=raw > 128)
    volumes = imported(path, labels_path=str(hdf5(tmp_path / "labels.h5", main=labels)), mask="inside")
    assert_arrived(volumes, raw.astype(np.uint16), labels)
    np.testing.assert_array_equal(volumes["mask"].array[:], raw > 128)
    assert volumes["mask"].array.dtype == np.uint8


def test_a_mask_in_a_file_of_its_own(tmp_path: Path, raw: np.ndarray, imported: Import) -> None:
    path = hdf5(tmp_path / "raw.h5", {"voxel_size": [40, 4, 4]}, main=raw)
    volumes = imported(path, mask_path=str(hdf5(tmp_path / "mask.h5", tissue=(raw > 128).astype(np.uint8))))
    np.testing.assert_array_equal(volumes["mask"].array[:], raw > 128)


def test_supervoxels_are_merged_into_bodies(tmp_path: Path, raw: np.ndarray, imported: Import) -> None:
    """FlyEM ground truth: the volume `stack` alone would be an over-segmentation."""
    stack = np.random.default_rng(0).integers(0, 50, raw.shape).astype(np.uint32)
    table = np.array([[i, i % 7 + 1] for i in range(49, 0, -1)], dtype=np.uint64)
    path = hdf5(tmp_path / "raw.h5", {"voxel_size": [10, 10, 10]}, raw=raw)
    volumes = imported(path, labels_path=str(hdf5(tmp_path / "truth.h5", stack=stack, transforms=table)))
    assert_arrived(volumes, raw, np.where(stack > 0, stack % 7 + 1, 0))


def test_zarr_written_by_ourselves(tmp_path: Path, imported: Import) -> None:
    source = PhantomSource(shape=(6, 40, 40))
    import_source("phantom", source, tmp_path / "a" / "volume.zarr", BLOCK)
    expected = Phantom(source).read(Box.of_shape(source.shape))
    assert_arrived(imported(tmp_path / "a" / "volume.zarr"), expected["raw"], expected["labels"])


def test_zarr_array_without_a_group(tmp_path: Path, raw: np.ndarray, imported: Import) -> None:
    zarr.save_array(str(tmp_path / "a.zarr"), raw)
    assert_arrived(imported(tmp_path / "a.zarr", voxel_size=(40, 4, 4)), raw)


@pytest.mark.parametrize(
    "attributes",
    [{"resolution": [4, 8, 40]}, {"pixelResolution": {"dimensions": [4.0, 8.0, 40.0], "unit": "nm"}}],
)
def test_n5_attributes_are_listed_x_first(
    tmp_path: Path, raw: np.ndarray, labels: np.ndarray, imported: Import, attributes: dict[str, Any]
) -> None:
    for name, data in {"volumes/raw": raw, "volumes/labels/neuron_ids": labels}.items():
        write_n5(tmp_path / "a.n5" / name, data, attributes)
    volumes = imported(tmp_path / "a.n5")
    assert_arrived(volumes, raw, labels)
    assert volumes["raw"].voxel_size == Coordinate(40, 8, 4)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_multi_page_tiff(
    tmp_path: Path, raw: np.ndarray, labels: np.ndarray, imported: Import, compression: str | None
) -> None:
    tifffile.imwrite(tmp_path / "raw.tif", raw, compression=compression)
    tifffile.imwrite(tmp_path / "labels.tif", labels, compression=compression)
    volumes = imported(tmp_path / "raw.tif", labels_path=str(tmp_path / "labels.tif"), voxel_size=(40, 4, 4))
    assert_arrived(volumes, raw, labels)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_big_endian_16_bit_tiff(tmp_path: Path, raw: np.ndarray, imported: Import, compression: str | None) -> None:
    deep = raw.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "raw.tif", deep, byteorder=">", compression=compression, photometric="minisblack")
    assert_arrived(imported(tmp_path / "raw.tif", voxel_size=(40, 4, 4)), deep)


def test_tiff_sections_that_were_written_one_by_one(tmp_path: Path, raw: np.ndarray, imported: Import) -> None:
    with tifffile.TiffWriter(tmp_path / "raw.tif") as file:
        for section in raw:
            file.write(section, compression="zlib")
    assert_arrived(imported(tmp_path / "raw.tif", voxel_size=(40, 4, 4)), raw)


def test_imagej_tiff_says_its_voxel_size(tmp_path: Path, raw: np.ndarray, imported: Import) -> None:
    tifffile.imwrite(
        tmp_path / "raw.tif",
        raw,
        imagej=True,
        resolution=(1 / 0.004, 1 / 0.008),
        metadata={"spacing": 0.04, "unit": "um", "axes": "ZYX"},
    )
    volumes = imported(tmp_path / "raw.tif")
    assert_arrived(volumes, raw)
    assert volumes["raw"].voxel_size == Coordinate(40, 8, 4)


def test_ome_tiff_says_its_voxel_size(tmp_path: Path, raw: np.ndarray, imported: Import) -> None:
    sizes = {"PhysicalSizeZ": 0.05, "PhysicalSizeY": 8.0, "PhysicalSizeYUnit": "nm", "PhysicalSizeX": 0.004}
    tifffile.imwrite(tmp_path / "raw.ome.tif", raw, metadata={"axes": "ZYX", **sizes})
    volumes = imported(tmp_path / "raw.ome.tif")
    assert_arrived(volumes, raw)
    assert volumes["raw"].voxel_size == Coordinate(50, 8, 4)


def test_grey_palettes_are_grey_and_labels_may_have_any_colours(
    tmp_path: Path, raw: np.ndarray, labels: np.ndarray, imported: Import
) -> None:
    grey = np.broadcast_to(np.arange(256, dtype=np.uint16) * 257, (3, 256))
    colours = np.random.default_rng(0).integers(0, 2**16, (3, 256), np.uint16)
    few = (labels % 200).astype(np.uint8)
    for name, array, palette in (("raw", raw, grey), ("labels", few, colours)):
        tifffile.imwrite(tmp_path / f"{name}.tif", array, photometric="palette", colormap=palette)
    volumes = imported(tmp_path / "raw.tif", labels_path=str(tmp_path / "labels.tif"), voxel_size=(40, 4, 4))
    assert_arrived(volumes, raw, few)


def test_folder_of_numbered_tiffs(tmp_path: Path, raw: np.ndarray, labels: np.ndarray, imported: Import) -> None:
    for folder, volume in {"raw": raw, "labels": labels}.items():
        (tmp_path / folder).mkdir()
        for number, section in enumerate(volume, start=7):
            tifffile.imwrite(tmp_path / folder / f"sample2_z{number:03d}_c1.TIF", section)
    volumes = imported(tmp_path / "raw", labels_path=str(tmp_path / "labels"), voxel_size=(40, 4, 4))
    assert_arrived(volumes, raw, labels)


def test_file_source_expands_variables(
    tmp_path: Path, raw: np.ndarray, imported: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    hdf5(tmp_path / "a.h5", {"voxel_size": [40, 4, 4]}, raw=raw)
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    assert_arrived(imported(Path("${LAB_DATA}/a.h5")), raw)


def test_sections_of_a_slab_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compressed stack is read block by block, but a section must not be decoded for each block; nor kept for
    ever."""
    from pipeline.datasets import tiff

    monkeypatch.setattr(tiff, "SLAB_IN_MEMORY", 0)  # forces the temporary file
    volume = np.random.default_rng(0).integers(0, 256, (9, 64, 64), dtype=np.uint8)
    decoded: list[int] = []

    def load(section: int) -> np.ndarray:
        decoded.append(section)
        result: np.ndarray = volume[section]
        return result

    sections = tiff.Sections((9, 64, 64), volume.dtype, load)
    for z in range(0, 9, 4):
        for y in range(0, 64, 16):
            index = (slice(z, min(z + 4, 9)), slice(y, y + 16), slice(0, 64))
            np.testing.assert_array_equal(sections[index], volume[index])
    assert decoded == list(range(9))


def test_real_hdf5(real_data: Path, tmp_path: Path) -> None:
    source = FileSource(path=str(real_data / "vnc_train.h5"))
    import_source("vnc", source, tmp_path / "volume.zarr", (32, 256, 256))
    with h5py.File(real_data / "vnc_train.h5") as file:
        np.testing.assert_array_equal(open_volume(tmp_path / "volume.zarr", "raw").array[:], file["raw"][:])
        np.testing.assert_array_equal(open_volume(tmp_path / "volume.zarr", "labels").array[:], file["labels"][:])
    assert open_volume(tmp_path / "volume.zarr", "raw").voxel_size == Coordinate(50, 4, 4)
