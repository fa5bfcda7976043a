"""Arrays of chunks and shards that others wrote: read with their place, damage and every missing file noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stored_arrays import raw_voxels, write_n5, write_precomputed, write_zarr, write_zarr3

from pipeline.errors import UserError
from pipeline.volumes.arrays import Box
from pipeline.volumes.locations import Location
from pipeline.volumes.opening import Wanted, open_at
from pipeline.volumes.tensors import divisor_near
from pipeline.volumes.volume import Volume

SHAPE = (40, 72, 70)
SHARD = (16, 32, 32)
IDS = np.random.default_rng(1).integers(0, 2**60, SHAPE).astype("u8")


def written(path: Path) -> Path:
    """A volume of ids in shards of eight chunks."""
    place = {"voxel_size": [40, 3.58, 5.24], "offset": [80, 7.16, 0], "units": ["nm"] * 3}
    write_zarr3(path, IDS, place, shard=SHARD)
    return path


def box(*bounds: int) -> Box:
    """A box of its six bounds."""
    z, y, x, z_end, y_end, x_end = bounds
    return Box(Box.of_shape((z, y, x)).end, Box.of_shape((z_end, y_end, x_end)).end)


def opened(path: Path) -> Volume:
    """The volume of a path, from its metadata."""
    volume = open_at(Location.of(path))
    assert volume is not None
    return volume


def test_shards_are_read_with_their_place(tmp_path: Path) -> None:
    volume = opened(written(tmp_path / "ids"))
    assert np.array_equal(volume.read(volume.box), IDS)
    assert (volume.voxel_size, volume.offset) == ((40, 3.58, 5.24), (80, 7.16, 0))
    assert volume.dtype == np.uint64 and volume.chunks == (8, 16, 16) and volume.shards == SHARD
    beyond = box(-3, -5, 60, 4, 9, 75)
    padded = np.pad(IDS, [(10, 10)] * 3, mode="reflect")[7:14, 5:19, 70:85]
    assert np.array_equal(volume.read_mirrored(beyond), padded)


def test_channels_come_first(tmp_path: Path) -> None:
    affinities = raw_voxels((3, *SHAPE))
    write_zarr3(tmp_path / "a", affinities, names=("c", "z", "y", "x"))
    volume = open_at(Location.of(tmp_path / "a"), Wanted(keep_channels=True, placed=False))
    assert volume is not None and volume.channels == 3
    part = box(3, 5, 7, 30, 40, 41)
    assert np.array_equal(volume.read(part), affinities[(slice(None), *part.slices)])
    assert volume.missing(part) == []


def test_missing_files_of_a_box_are_named(tmp_path: Path) -> None:
    volume = opened(written(tmp_path / "ids"))
    assert volume.missing(volume.box) == []
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
    shard = written(tmp_path / "ids") / "c/0/0/0"
    whole = shard.read_bytes()
    for position in (100, len(whole) // 2, len(whole) - 20):
        shard.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(UserError, match="damaged"):
            opened(tmp_path / "ids").read(box(0, 0, 0, 16, 32, 32))
    shard.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="damaged"):
        opened(tmp_path / "ids").read(box(0, 0, 0, 16, 32, 32))


def test_only_the_chunks_that_a_box_touches_are_decoded(tmp_path: Path) -> None:
    shard = written(tmp_path / "ids") / "c/0/0/0"
    whole = bytearray(shard.read_bytes())
    whole[100] ^= 1  # in the first chunk
    shard.write_bytes(whole)
    far = box(8, 16, 16, 16, 32, 32)
    assert np.array_equal(opened(tmp_path / "ids").read(far), IDS[far.slices])


def test_chunks_divide_shards() -> None:
    assert [divisor_near(extent, 64) for extent in (256, 128, 84, 96, 53, 1)] == [64, 64, 84, 48, 53, 1]
