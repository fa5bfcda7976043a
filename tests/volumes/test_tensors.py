"""Arrays that we write: whole shards in one piece, checked, and every missing file noticed."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
from stored_arrays import raw_voxels, write_n5, write_precomputed, write_zarr, write_zarr3

from pipeline.errors import UserError, causes
from pipeline.volumes.arrays import Box
from pipeline.volumes.locations import Location
from pipeline.volumes.opening import Wanted, create_volume_at, open_at
from pipeline.volumes.tensors import divisor_near
from pipeline.volumes.volume import Volume

SHAPE = (40, 72, 70)
SHARD = (16, 32, 32)
IDS = np.random.default_rng(1).integers(0, 2**60, SHAPE).astype("u8")


def created(path: Path, dtype: str = "uint64") -> Volume:
    """An empty volume in shards of eight chunks."""
    return create_volume_at(
        Location.of(path),
        SHAPE,
        dtype,
        shard=SHARD,
        chunk=(8, 16, 16),
        voxel_size=(40, 3.58, 5.24),
        offset=(80, 7.16, 0),
    )


def box(*bounds: int) -> Box:
    """A box of its six bounds."""
    z, y, x, z_end, y_end, x_end = bounds
    return Box(Box.of_shape((z, y, x)).end, Box.of_shape((z_end, y_end, x_end)).end)


def reopened(path: Path, writable: bool = False) -> Volume:
    """The volume of a path, from its metadata."""
    volume = open_at(Location.of(path), writable=writable)
    assert volume is not None
    return volume


def test_what_was_written_is_read_with_its_place(tmp_path: Path) -> None:
    volume = created(tmp_path / "ids")
    volume.write(volume.box, IDS)
    again = reopened(tmp_path / "ids")
    assert np.array_equal(again.read(again.box), IDS)
    assert (again.voxel_size, again.offset) == ((40, 3.58, 5.24), (80, 7.16, 0))
    assert again.dtype == np.uint64 and again.chunks == (8, 16, 16) and again.shards == SHARD
    beyond = box(-3, -5, 60, 4, 9, 75)
    padded = np.pad(IDS, [(10, 10)] * 3, mode="reflect")[7:14, 5:19, 70:85]
    assert np.array_equal(again.read_mirrored(beyond), padded)


def test_channels_come_first_and_are_not_divided(tmp_path: Path) -> None:
    affinities = raw_voxels((3, *SHAPE))
    volume = create_volume_at(Location.of(tmp_path / "a"), affinities.shape, "uint8", shard=SHARD, voxel_size=(1, 1, 1))
    volume.write(volume.box, affinities)
    again = open_at(Location.of(tmp_path / "a"), Wanted(keep_channels=True))
    assert again is not None and again.channels == 3
    part = box(3, 5, 7, 30, 40, 41)
    assert np.array_equal(again.read(part), affinities[(slice(None), *part.slices)])
    assert again.missing(part) == []


def test_a_shard_is_one_file_and_is_never_cut(tmp_path: Path) -> None:
    volume = created(tmp_path / "ids")
    volume.write(box(16, 32, 32, 32, 64, 64), IDS[16:32, 32:64, 32:64])
    assert [str(f.relative_to(tmp_path)) for f in sorted(tmp_path.rglob("*")) if f.is_file()] == [
        "ids/c/1/1/1",
        "ids/zarr.json",
    ]
    for cut in (box(16, 32, 32, 32, 64, 60), box(8, 32, 32, 32, 64, 64)):
        with pytest.raises(ValueError, match="not whole shards"):
            volume.write(cut, IDS[cut.slices])


def test_a_value_that_does_not_fit_is_never_cast(tmp_path: Path) -> None:
    volume = created(tmp_path / "ids")
    with pytest.raises(TypeError, match="safe"):
        volume.write(volume.box, np.full(SHAPE, -1))


def test_missing_files_of_a_box_are_named(tmp_path: Path) -> None:
    volume = created(tmp_path / "ids")
    volume.write(volume.box, np.zeros(SHAPE, "u8"))
    assert volume.missing(volume.box) == []  # blocks of zeros are there, too
    (tmp_path / "ids/c/0/1/0").unlink()
    assert volume.missing(volume.box) == ["c/0/1/0"]
    assert volume.missing(box(0, 0, 0, 16, 32, 32)) == []
    assert volume.missing(box(15, 31, 31, 17, 33, 33)) == ["c/0/1/0"]


def test_missing_chunks_of_every_format_are_named(tmp_path: Path) -> None:
    raw = raw_voxels()
    write_zarr(tmp_path / "zarr", raw)
    write_zarr(tmp_path / "nested", raw, dimension_separator="/")
    write_zarr3(tmp_path / "zarr3", raw)
    write_n5(tmp_path / "n5", raw)
    write_precomputed(tmp_path / "precomputed", raw, voxel_offset=(100, 20, 3))
    last = {
        "zarr": "1.2.2",
        "nested": "1/2/2",
        "zarr3": "c/1/2/2",
        "n5": "2/2/1",
        "precomputed": "4_6_40/132-144_52-60_11-15",
    }
    for name, key in last.items():
        volume = open_at(Location.of(tmp_path / name), Wanted(placed=False))
        assert volume is not None and volume.missing(volume.box) == []
        (tmp_path / name / key).unlink()
        assert volume.missing(volume.box) == [key]
        assert volume.missing(box(0, 0, 0, 8, 40, 44)) == []


def test_a_flipped_bit_and_a_lost_end_are_noticed(tmp_path: Path) -> None:
    created(tmp_path / "ids").write(Box.of_shape(SHAPE), IDS)
    shard = tmp_path / "ids/c/0/0/0"
    whole = shard.read_bytes()
    for position in (100, len(whole) // 2, len(whole) - 20):
        shard.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(UserError, match="damaged"):
            reopened(tmp_path / "ids").read(box(0, 0, 0, 16, 32, 32))
    shard.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="damaged"):
        reopened(tmp_path / "ids").read(box(0, 0, 0, 16, 32, 32))


def test_only_the_chunks_that_a_box_touches_are_decoded(tmp_path: Path) -> None:
    created(tmp_path / "ids").write(Box.of_shape(SHAPE), IDS)
    shard = tmp_path / "ids/c/0/0/0"
    whole = bytearray(shard.read_bytes())
    whole[100] ^= 1  # in the first chunk
    shard.write_bytes(whole)
    far = box(8, 16, 16, 16, 32, 32)
    assert np.array_equal(reopened(tmp_path / "ids").read(far), IDS[far.slices])


def test_a_place_that_cannot_be_written_is_told_with_its_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written: Not a directory") as refused:
        created(tmp_path / "file/ids")
    assert any(isinstance(link, OSError) for link in causes(refused.value))


def write_some(path: Path, number: int) -> None:
    """The shards of one process: each fourth."""
    volume = reopened(path, writable=True)
    shards = [
        Box.of_shape(SHAPE).intersect(box(z, y, x, z + 16, y + 32, x + 32))
        for z in range(0, 40, 16)
        for y in range(0, 72, 32)
        for x in range(0, 70, 32)
    ]
    for part in shards[number::4]:
        volume.write(part, IDS[part.slices])


def test_processes_that_write_neighbouring_shards_lose_nothing(tmp_path: Path) -> None:
    created(tmp_path / "ids")
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=write_some, args=(tmp_path / "ids", number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    volume = reopened(tmp_path / "ids")
    assert volume.missing(volume.box) == []
    assert np.array_equal(volume.read(volume.box), IDS)


def test_any_reader_of_zarr_3_finds_a_plain_array(tmp_path: Path) -> None:
    created(tmp_path / "ids")
    document = json.loads((tmp_path / "ids/zarr.json").read_text())
    sharding = document["codecs"][0]["configuration"]
    assert [codec["name"] for codec in sharding["codecs"]] == ["bytes", "blosc", "crc32c"]
    assert document["dimension_names"] == ["z", "y", "x"] and document["shape"] == list(SHAPE)


def test_creating_replaces_what_was_there(tmp_path: Path) -> None:
    created(tmp_path / "ids").write(Box.of_shape(SHAPE), IDS)
    created(tmp_path / "ids")
    assert not (tmp_path / "ids/c").exists() or not any(f.is_file() for f in (tmp_path / "ids/c").rglob("*"))
    shutil.rmtree(tmp_path / "ids")


def test_chunks_divide_shards() -> None:
    assert [divisor_near(extent, 64) for extent in (256, 128, 84, 96, 53, 1)] == [64, 64, 84, 48, 53, 1]
