"""Volumes keep their place in the world, boxes are right at their borders, and damage has a name."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zarr
from funlib.geometry import Coordinate, Roi
from funlib.persistence import open_ds
from stored_arrays import write_group, write_zarr

from pipeline.errors import UserError
from pipeline.volumes import (
    Box,
    RunVolume,
    StorageFormat,
    create_volume,
    crop,
    delete_volume,
    mirror_indices,
    open_volume,
    position_of,
    volume_exists,
)

VOXEL_SIZE = (40, 8, 4)
OFFSET = (400, -80, 12)


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """Where a test's volumes lie."""
    return tmp_path / "volume.zarr"


@pytest.fixture(params=[2, 3], ids=["format 2", "format 3"])
def storage_format(request: pytest.FixtureRequest) -> StorageFormat:
    """Both formats that a run may have."""
    chosen: StorageFormat = request.param
    return chosen


@pytest.fixture
def raw(container: Path, storage_format: StorageFormat) -> RunVolume:
    """A volume of random intensities whose shards do not divide it."""
    volume = create_volume(
        container,
        "raw",
        (7, 10, 9),
        np.uint8,
        voxel_size=VOXEL_SIZE,
        offset=OFFSET,
        chunks=(4, 4, 4),
        storage_format=storage_format,
    )
    volume.write(volume.box, np.random.default_rng(0).integers(1, 255, (7, 10, 9), dtype=np.uint8))
    return volume


def box(*bounds: int) -> Box:
    """Box from z0, y0, x0, z1, y1, x1."""
    return Box(Coordinate(bounds[:3]), Coordinate(bounds[3:]))


# Boxes


def test_box_counts_its_voxels() -> None:
    assert box(1, 2, 3, 4, 6, 8).shape == Coordinate(3, 4, 5)
    assert box(1, 2, 3, 4, 6, 8).size == 60
    assert box(5, 0, 0, 4, 9, 9).size == 0, "a box whose end precedes its begin is empty"


def test_intersection_of_disjoint_boxes_is_empty_not_negative() -> None:
    common = box(0, 0, 0, 2, 2, 2).intersect(box(5, 0, 0, 6, 2, 2))
    assert common.size == 0
    assert min(common.shape) >= 0


def test_box_arithmetic() -> None:
    block = box(4, 4, 4, 8, 8, 8)
    grown = block.grow((1, 2, 3), (0, 0, 1))
    assert grown == box(3, 2, 1, 8, 8, 9)
    assert block.relative_to(grown) == box(1, 2, 3, 5, 6, 7)
    assert grown.contains(block)
    assert not block.contains(grown)
    assert grown.intersect(block) == block
    assert crop(np.zeros((2, 9, 9, 9)), block).shape == (2, 4, 4, 4)


# The place in the world


def test_positions_may_have_fractions(container: Path, raw: RunVolume) -> None:
    assert position_of((1, 2, 3), raw.voxel_size, raw.offset) == (440, -64, 24)
    create_volume(
        container, "fine", (7, 10, 9), np.uint8, voxel_size=(30, 3.58, 5.24), offset=(0, 0.5, 8), chunks=(4,) * 3
    )
    fine = open_volume(container, "fine")
    assert fine.voxel_size == (30, 3.58, 5.24) and fine.offset == (0, 0.5, 8)
    assert position_of((1, 2, 0.5), fine.voxel_size, fine.offset) == pytest.approx((30, 7.66, 10.62), rel=1e-12)
    stored = fine.array.attrs
    assert json.dumps([stored["voxel_size"], stored["offset"]]) == "[[30, 3.58, 5.24], [0, 0.5, 8]]"


@pytest.mark.parametrize("storage_format", [2], indirect=True)
def test_funlib_persistence_reads_arrays_in_format_2(container: Path, raw: RunVolume) -> None:
    create_volume(container, "affinities", (3, 7, 10, 9), np.uint8, like=raw, chunks=(4, 4, 4))
    array = open_ds(container / "raw")
    assert array.voxel_size == Coordinate(VOXEL_SIZE)
    assert array.offset == Coordinate(OFFSET)
    assert list(array.axis_names) == ["z", "y", "x"]
    assert list(array.units) == ["nm", "nm", "nm"]
    whole = Roi(OFFSET, (280, 80, 36))
    assert array.roi == whole
    affinities = open_ds(container / "affinities")
    assert list(affinities.axis_names) == ["c^", "z", "y", "x"]
    assert affinities.roi == whole
    np.testing.assert_array_equal(
        array[Roi(Coordinate(OFFSET) + Coordinate(VOXEL_SIZE), Coordinate(VOXEL_SIZE) * 2)],
        raw.read(box(1, 1, 1, 3, 3, 3)),
    )


@pytest.mark.parametrize("storage_format", [2], indirect=True)
def test_arrays_in_format_2_are_zarr_2_with_zstd_and_undivided_channels(container: Path, raw: RunVolume) -> None:
    volume = create_volume(container, "segmentation/0.50", (3, 7, 10, 9), np.uint8, like=raw, chunks=(4, 99, 4))
    stored = json.loads((container / "segmentation" / "0.50" / ".zarray").read_text())
    assert stored["chunks"] == [3, 4, 10, 4]
    assert stored["compressor"]["cname"] == "zstd"
    assert zarr.open(str(container), mode="r")["segmentation/0.50"].shape == (3, 7, 10, 9)
    assert volume.shape == raw.shape


def test_opening_again_keeps_place_and_attributes(container: Path, storage_format: StorageFormat) -> None:
    create_volume(
        container,
        "a",
        (2, 2, 2),
        np.uint64,
        voxel_size=VOXEL_SIZE,
        offset=OFFSET,
        chunks=(2, 2, 2),
        attributes={"key": "x"},
        storage_format=storage_format,
    )
    volume = open_volume(container, "a")
    assert (volume.voxel_size, volume.offset) == (Coordinate(VOXEL_SIZE), Coordinate(OFFSET))
    assert volume.array.attrs["key"] == "x"


def test_an_array_that_is_opened_to_be_read_cannot_be_written(raw: RunVolume, container: Path) -> None:
    with pytest.raises(UserError, match="does not support writing"):
        open_volume(container, "raw").write(raw.box, np.zeros(raw.shape, np.uint8))


def test_creating_again_starts_empty(container: Path, raw: RunVolume) -> None:
    again = create_volume(container, "raw", raw.shape, np.uint8, like=raw, chunks=(4, 4, 4))
    assert not again.read(again.box).any()


def test_deleting_leaves_nothing_and_may_be_repeated(container: Path, raw: RunVolume) -> None:
    assert volume_exists(container, "raw")
    delete_volume(container, "raw")
    delete_volume(container, "raw")
    assert not volume_exists(container, "raw")


# Mirroring


@pytest.mark.parametrize(("begin", "end", "extent"), [(-3, 5, 5), (-9, 17, 5), (4, 30, 7), (-20, -11, 6), (-4, 4, 2)])
def test_mirror_indices_agree_with_numpys_reflect_padding(begin: int, end: int, extent: int) -> None:
    low, high = max(0, -begin), max(0, end - extent)
    padded = np.pad(np.arange(extent), (low, high), mode="reflect")
    np.testing.assert_array_equal(mirror_indices(begin, end, extent), padded[begin + low : end + low])


def test_one_section_mirrors_to_itself() -> None:
    np.testing.assert_array_equal(mirror_indices(-2, 3, 1), [0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    "part",
    [
        box(0, 0, 0, 7, 10, 9),
        box(-2, -3, -8, 9, 12, 18),
        box(5, 8, -4, 8, 11, 2),
        box(6, 9, 8, 7, 10, 9),
        box(7, 0, 0, 9, 1, 1),
    ],
)
def test_reading_beyond_the_volume_equals_padding_the_whole(raw: RunVolume, part: Box) -> None:
    margin = 12
    whole = np.pad(raw.read(raw.box), margin, mode="reflect")
    expected = whole[part.grow([-margin] * 3, [margin] * 3).slices]
    np.testing.assert_array_equal(raw.read_mirrored(part), expected)


def test_mirrored_reads_keep_channels(container: Path, raw: RunVolume) -> None:
    volume = create_volume(container, "affinities", (2, 3, 4, 5), np.uint8, like=raw, chunks=(3, 4, 5))
    data = np.random.default_rng(1).integers(0, 255, (2, 3, 4, 5), dtype=np.uint8)
    volume.write(volume.box, data)
    expected = np.pad(data, ((0, 0), (2, 2), (1, 1), (3, 3)), mode="reflect")
    np.testing.assert_array_equal(volume.read_mirrored(volume.box.grow((2, 1, 3), (2, 1, 3))), expected)


# Damage


@pytest.mark.parametrize("kept", [0, 8, 40, -1])
def test_a_truncated_file_is_named_instead_of_read_as_rubbish(raw: RunVolume, kept: int) -> None:
    path = raw.array.file((1, 0, 0))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError) as error:
        raw.read(raw.box)
    assert "raw" in str(error.value)
    assert {2: "chunk 1.0.0 is truncated", 3: "shard c/1/0/0 is truncated"}[raw.array.format] in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_rubbish_is_named(raw: RunVolume) -> None:
    path = raw.array.file((0, 0, 0))
    path.write_bytes(b"\xff" * 12 + path.stat().st_size.to_bytes(4, "little") + b"\xff" * (path.stat().st_size - 16))
    with pytest.raises(UserError, match=r"volume\.zarr/raw.*: (chunk 0\.0\.0|shard c/0/0/0) is truncated or damaged"):
        open_volume(Path(raw.name).parent, "raw").read(box(0, 0, 0, 1, 1, 1))


def test_damage_elsewhere_does_not_matter(raw: RunVolume) -> None:
    raw.array.file((1, 0, 0)).write_bytes(b"")
    assert raw.read(box(0, 0, 0, 4, 4, 4)).all()


def test_a_missing_dataset_is_a_users_error(container: Path, raw: RunVolume) -> None:
    for path, name in [(container, "fragments"), (container.parent / "none.zarr", "raw")]:
        with pytest.raises(UserError, match="there is no such dataset; run the earlier stages first"):
            open_volume(path, name)


@pytest.mark.parametrize(
    ("storage_format", "file"), [(2, ".zarray"), (2, ".zattrs"), (3, "s0/zarr.json")], indirect=["storage_format"]
)
def test_damaged_metadata_are_a_users_error(container: Path, raw: RunVolume, file: str) -> None:
    (container / "raw" / file).write_text("{")
    with pytest.raises(UserError, match=r"is damaged .*; delete the dataset and run its stage again"):
        open_volume(container, "raw")


def test_an_array_without_voxel_size_is_refused(container: Path) -> None:
    write_group(container, {})
    write_zarr(container / "raw", np.zeros((2, 2, 2)))
    with pytest.raises(UserError, match="no voxel_size"):
        open_volume(container, "raw")


def test_a_container_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "volume.zarr"):
        with pytest.raises(UserError, match="cannot be written"):
            create_volume(path, "raw", (2, 2, 2), np.uint8, chunks=(2, 2, 2))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot be written: Permission denied"):
        create_volume(tmp_path / "locked" / "volume.zarr", "raw", (2, 2, 2), np.uint8, chunks=(2, 2, 2))


@contextmanager
def small_files_only() -> Iterator[None]:
    """The system refuses to write more than 4 kB into a file, as it does when a quota is used up.

    Only around the write itself: the test runner's own output may go to a file as well.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_disk_refuses_is_a_users_error_and_leaves_no_half_file(
    container: Path, storage_format: StorageFormat
) -> None:
    volume = create_volume(container, "raw", (32, 32, 32), np.uint8, chunks=(32, 32, 32), storage_format=storage_format)
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 32), dtype=np.uint8)
    with small_files_only(), pytest.raises(UserError, match="cannot be written: File too large"):
        volume.write(volume.box, noise)
    assert not volume.read(volume.box).any()
