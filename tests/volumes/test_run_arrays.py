"""Shards on disk: written whole, never lost between processes, and damage in them is named."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr
from funlib.geometry import Coordinate
from numcodecs import Blosc
from storage_counts import BYTES_READ, CHUNKS, READS, WRITES, counted, file_names
from stored_arrays import ZARR_2, write_group
from yaozarrs import v05

from pipeline.engine.blocks.storage import require_whole
from pipeline.errors import UserError
from pipeline.volumes import Box, RunVolume, StorageFormat, create_volume, delete_volume, open_volume
from pipeline.volumes.locations import Location
from pipeline.volumes.opening import Wanted, open_at

CURE = "audit.py --requeue has it made again"
SHARD = (16, 32, 32)
SHAPE = (32, 128, 64)
"""Of 2 x 4 x 2 shards."""
PROCESSES = 8

storage_formats = pytest.mark.parametrize("storage_format", [2, 3], ids=["format 2", "format 3"])


def make(folder: Path, storage_format: StorageFormat = 3, channels: tuple[int, ...] = ()) -> RunVolume:
    return create_volume(
        folder / "volume.zarr",
        "ids",
        (*channels, *SHAPE),
        "uint64",
        voxel_size=(40, 8, 8),
        offset=(400, 0, 16),
        chunks=SHARD,
        storage_format=storage_format,
    )


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 2**60, shape, dtype=np.uint64)


def boxes(volume: RunVolume) -> list[Box]:
    return list(volume.box.split(SHARD))


# One write, one file


@storage_formats
def test_a_block_is_written_as_one_file_and_read_back_with_one_request(
    tmp_path: Path, storage_format: StorageFormat
) -> None:
    volume, data = make(tmp_path, storage_format, (2,)), noise((2, *SHARD))
    before = counted(WRITES), counted(READS)
    volume.write(boxes(volume)[5], data)
    np.testing.assert_array_equal(volume.read(boxes(volume)[5]), data)
    assert (counted(WRITES) - before[0], counted(READS) - before[1]) == (1, 1)
    assert int(volume.array.present().sum()) == 1
    assert volume.array.sizes(10) == [volume.array.file((0, 2, 1)).stat().st_size]


@storage_formats
def test_a_block_of_zeros_is_a_file_too(tmp_path: Path, storage_format: StorageFormat) -> None:
    volume = make(tmp_path, storage_format)
    volume.write(volume.box, np.zeros(SHAPE, np.uint64))
    assert volume.array.present().all()


def test_a_write_that_cuts_a_shard_is_a_bug(tmp_path: Path) -> None:
    volume = make(tmp_path)
    part = Box(Coordinate(0, 0, 0), Coordinate(16, 32, 31))
    with pytest.raises(ValueError, match="not whole shards"):
        volume.write(part, np.ones(part.shape, np.uint64))
    assert not volume.array.present().any()


def test_a_small_box_costs_the_index_and_the_chunks_that_it_touches(tmp_path: Path) -> None:
    shape = (128, 128, 128)
    volume = create_volume(tmp_path / "volume.zarr", "ids", shape, "uint64", chunks=shape)
    volume.write(volume.box, noise(shape))
    size = volume.array.file((0, 0, 0)).stat().st_size
    before = counted(CHUNKS), counted(BYTES_READ)
    volume.read(Box(Coordinate(10, 10, 10), Coordinate(20, 20, 20)))
    assert counted(CHUNKS) - before[0] == 1
    assert counted(BYTES_READ) - before[1] < 1.1 * size / 8


# Damage


@storage_formats
def test_a_missing_file_is_an_error_unless_its_block_is_empty(tmp_path: Path, storage_format: StorageFormat) -> None:
    volume = make(tmp_path, storage_format)
    volume.write(volume.box, noise(SHAPE))
    first, second = boxes(volume)[:2]
    empty = np.zeros(volume.array.grid_shape, dtype=bool)
    empty[0, 0, 0] = True
    for position in ((0, 0, 0), (0, 0, 1)):
        volume.array.file(position).unlink()
    upstream = require_whole(open_volume(tmp_path / "volume.zarr", "ids"), empty, CURE)
    assert not upstream.read(first).any()
    name = {2: r"chunk 0\.0\.1", 3: "shard c/0/0/1"}[storage_format]
    for box in (second, volume.box):
        with pytest.raises(UserError, match=rf"volume\.zarr/ids: {name} is missing; audit\.py --requeue has it"):
            upstream.read(box)
    assert upstream.read(boxes(volume)[2]).all()


@pytest.mark.parametrize("where", [0.0, 0.3, 0.9, 1.0], ids=["first", "early", "late", "last byte"])
def test_any_flipped_bit_is_noticed_and_the_shard_named(tmp_path: Path, where: float) -> None:
    volume = make(tmp_path)
    volume.write(volume.box, noise(SHAPE))
    path = volume.array.file((1, 3, 0))
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 16
    path.write_bytes(content)
    upstream = require_whole(open_volume(tmp_path / "volume.zarr", "ids"), np.zeros((2, 4, 2), bool), CURE)
    with pytest.raises(UserError) as error:
        upstream.read(volume.box)
    assert "ids/s0: shard c/1/3/0 is truncated or damaged (" in str(error.value)
    assert str(error.value).endswith(CURE) and "\n" not in str(error.value)
    assert upstream.read(boxes(volume)[0]).all(), "others can be read"


def write_in_small_files(folder: Path) -> None:
    """Write a block, and be killed by the system in the middle of the file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    volume = open_volume(folder / "volume.zarr", "ids", "r+")
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    volume.write(boxes(volume)[0], noise(SHARD, 2))


@storage_formats
def test_killed_in_the_middle_of_a_file_the_former_one_stays_and_can_be_replaced(
    tmp_path: Path, storage_format: StorageFormat
) -> None:
    volume = make(tmp_path, storage_format)
    block, former = boxes(volume)[0], noise(SHARD, 1)
    volume.write(block, former)
    process = multiprocessing.get_context("spawn").Process(target=write_in_small_files, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGXFSZ
    np.testing.assert_array_equal(volume.read(block), former)
    assert int(volume.array.present().sum()) == 1, "what was begun counts as nothing"
    volume.write(block, noise(SHARD, 3))
    np.testing.assert_array_equal(volume.read(block), noise(SHARD, 3))
    names = file_names(volume.array.folder)
    assert [name for name in names if not name.endswith((".json", ".zarray", ".zattrs"))] == [
        volume.array.key((0, 0, 0))
    ], "what the killed process left was used or removed"


# Many processes


def write_every_eighth(folder: Path, first: int) -> None:
    volume = open_volume(folder / "volume.zarr", "ids", "r+")
    for repeat in range(3):
        for number in range(first, len(boxes(volume)), PROCESSES):
            volume.write(boxes(volume)[number], noise(SHARD, 100 * repeat + number))


@storage_formats
def test_eight_processes_that_write_neighbouring_blocks_lose_nothing(
    tmp_path: Path, storage_format: StorageFormat
) -> None:
    volume = make(tmp_path, storage_format)
    assert len(boxes(volume)) == 2 * PROCESSES
    start = multiprocessing.get_context("spawn").Process
    processes = [start(target=write_every_eighth, args=(tmp_path, first)) for first in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    for number, box in enumerate(boxes(volume)):
        np.testing.assert_array_equal(volume.read(box), noise(SHARD, 200 + number))


# What other programs see


def test_a_container_is_a_valid_collection_of_ome_ngff_images(tmp_path: Path) -> None:
    container = tmp_path / "volume.zarr"
    place: dict[str, Any] = {"voxel_size": (40, 8, 4), "offset": (400, 0, -16), "chunks": (4, 4, 4)}
    for name, channels in (("raw", ()), ("affinities", (3,)), ("segmentation/0.50", ()), ("gone", ())):
        made = create_volume(container, name, (*channels, 7, 10, 9), "uint8", attributes={"key": "k"}, **place)
        made.write(made.box, np.ones(made.array.shape, np.uint8))
    delete_volume(container, "gone")
    yaozarrs.validate_zarr_store(str(container))
    listed = yaozarrs.open_group(str(container / "OME")).ome_metadata()
    assert isinstance(listed, v05.Series) and listed.series == ["raw", "affinities", "segmentation/0.50"]
    for name in listed.series:
        image = yaozarrs.validate_zarr_store(str(container / name)).ome_metadata()
        assert isinstance(image, v05.Image)
        (multiscale,) = image.model_dump()["multiscales"]
        axes = multiscale["axes"]
        assert [axis["name"] for axis in axes] == [*(["c"] if name == "affinities" else []), "z", "y", "x"]
        assert {(axis["type"], axis["unit"]) for axis in axes[-3:]} == {("space", "nanometer")}
        scale, translation = multiscale["datasets"][0]["coordinateTransformations"]
        assert scale["scale"][-3:] == [40, 8, 4] and translation["translation"][-3:] == [400, 0, -16]


@storage_formats
def test_arrays_of_runs_are_volumes_like_any_other(tmp_path: Path, storage_format: StorageFormat) -> None:
    volume = make(tmp_path, storage_format)
    volume.write(volume.box, noise(SHAPE))
    for path, dataset in (("volume.zarr", "ids"), ("volume.zarr/ids", None)):
        found = open_at(Location.of(str(tmp_path / path)), Wanted(dataset=dataset))
        assert found is not None
        assert (found.voxel_size, found.offset) == ((40, 8, 8), (400, 0, 16))
        np.testing.assert_array_equal(found.read(found.box), noise(SHAPE))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint64"])
def test_arrays_that_earlier_versions_wrote_are_read_and_continued(tmp_path: Path, dtype: str) -> None:
    """They were written by zarr-python."""
    data = noise(SHAPE).astype(dtype)
    coding = Blosc(cname="zstd", clevel=1, shuffle=Blosc.NOSHUFFLE)
    if data.itemsize > 1:
        coding = Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE)
    write_group(tmp_path / "volume.zarr", {})
    path, kind = str(tmp_path / "volume.zarr" / "old"), {"dtype": dtype, "compressor": coding, "fill_value": 0}
    array = zarr.open_array(path, mode="w", shape=SHAPE, chunks=SHARD, **kind, **ZARR_2)
    array.attrs.update(voxel_size=[40, 8, 8], offset=[400, 0, 16], axis_names=["z", "y", "x"], units=["nm"] * 3)
    array[:16] = data[:16]
    volume = open_volume(tmp_path / "volume.zarr", "old", "r+")
    assert (volume.array.format, volume.array.dtype, volume.array.shards) == (2, np.dtype(dtype), SHARD)
    assert np.argwhere(~volume.array.present())[:, 0].min() == 1
    later = Box(Coordinate(16, 0, 0), Coordinate(SHAPE))
    volume.write(later, data[16:])
    np.testing.assert_array_equal(volume.read(volume.box), data)
    np.testing.assert_array_equal(array[:], data)
    assert create_volume(tmp_path / "volume.zarr", "new", SHAPE, dtype, like=volume, chunks=SHARD).array.format == 2
