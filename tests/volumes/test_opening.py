"""Formats are recognised by what is there; nobody opens what was not asked for, or decodes what could run code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import pytest
import tensorstore as ts
import zarr
from stored_arrays import (
    ZARR_2,
    ngff,
    raw_voxels,
    scale,
    write_group,
    write_n5,
    write_precomputed,
    write_zarr,
    write_zarr3,
)

from pipeline.errors import UserError
from pipeline.volumes.arrays import Box, create_volume, open_volume
from pipeline.volumes.codecs import refuse_codecs_of_objects
from pipeline.volumes.formats import look
from pipeline.volumes.locations import Location
from pipeline.volumes.opening import Wanted, open_at
from pipeline.volumes.volume import Volume

RAW = raw_voxels()
PART = Box.of_shape(RAW.shape).grow((-3, -7, -5), (-2, -9, -11))


def opened(path: Path, dataset: str | None = None, **wanted: Any) -> Volume:
    """The volume of a path, wherever it lies in the world."""
    volume = open_at(Location.of(path), Wanted(dataset, placed=False, where="volumes.sources.s", **wanted))
    assert volume is not None
    return volume


def test_every_format_is_recognised_and_read_alike(tmp_path: Path) -> None:
    write_zarr(tmp_path / "zarr2", RAW)
    write_zarr(tmp_path / "nested", RAW.astype(">u2"), dimension_separator="/", order="F")
    write_zarr3(tmp_path / "zarr3", RAW)
    write_zarr3(tmp_path / "shards", RAW, shard=(16, 32, 32))
    write_n5(tmp_path / "n5", RAW)
    write_precomputed(tmp_path / "precomputed", RAW)
    write_precomputed(tmp_path / "sharded", RAW.astype("u8"), sharded=True, encoding="raw")
    np.save(tmp_path / "array.npy", RAW)
    with h5py.File(tmp_path / "file", "w") as file:
        file.create_dataset("a", data=RAW, chunks=(8, 16, 16))
    expected = {"nested": "zarr2", "shards": "zarr3", "sharded": "precomputed", "array.npy": "npy", "file": "hdf5"}
    for name in ("zarr2", "nested", "zarr3", "shards", "n5", "precomputed", "sharded", "array.npy", "file"):
        node = look(Location.of(tmp_path / name))
        assert node is not None and node.format == expected.get(name, name)
        volume = opened(tmp_path / name, "a" if name == "file" else None)
        assert np.array_equal(volume.read(PART), RAW[PART.slices]), name
        assert tuple(volume.shape) == RAW.shape
    assert opened(tmp_path / "shards").chunks == (8, 16, 16)
    assert opened(tmp_path / "shards").shards == (16, 32, 32)


def test_a_missing_chunk_without_fill_value_is_zeros(tmp_path: Path) -> None:
    array = zarr.open_array(
        str(tmp_path), mode="w", shape=(64, 256, 256), chunks=(32, 128, 128), dtype="u8", fill_value=None, **ZARR_2
    )
    array[:32, :128, :128] = 7
    for _ in range(3):
        data = opened(tmp_path).read(Box.of_shape((64, 256, 256)))
        assert (data[:32, :128, :128] == 7).all()
        assert data.sum() == 7 * 32 * 128 * 128


def test_a_fill_value_that_is_given_is_honoured(tmp_path: Path) -> None:
    zarr.open_array(str(tmp_path), mode="w", shape=(4, 4, 4), chunks=(2, 2, 2), dtype="i4", fill_value=-1, **ZARR_2)
    assert (opened(tmp_path).read(Box.of_shape((4, 4, 4))) == -1).all()


def test_neighbours_that_cannot_be_read_do_not_matter(tmp_path: Path) -> None:
    write_n5(tmp_path / "in.n5/raw", RAW)
    write_n5(tmp_path / "in.n5/preview", RAW, compression={"type": "lz4", "blockSize": 65536})
    write_group(tmp_path / "zarr", {})
    write_zarr(tmp_path / "zarr/raw", RAW)
    write_zarr(tmp_path / "zarr/preview", RAW)
    metadata = tmp_path / "zarr/preview/.zarray"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "compressor": {"id": "imagecodecs_jpegxl"}}))
    for container in ("in.n5", "zarr"):
        for name in ("raw", None):
            assert np.array_equal(
                opened(tmp_path / container, name, candidates=("raw", "main")).read(PART), RAW[PART.slices]
            )
    with pytest.raises(UserError, match="codec cannot be read: lz4; write the array again"):
        opened(tmp_path / "in.n5", "preview")
    with pytest.raises(UserError, match="codec cannot be read: imagecodecs_jpegxl; write the array again"):
        opened(tmp_path / "zarr", "preview")


def test_an_array_among_many_is_found_without_looking_at_the_others(tmp_path: Path) -> None:
    write_group(tmp_path, {})
    write_zarr(tmp_path / "volumes/raw", RAW)
    for number in range(30):
        (tmp_path / f"other{number:02d}").mkdir()
        (tmp_path / f"other{number:02d}/.zarray").write_text("not read by anybody")
    assert np.array_equal(opened(tmp_path, "volumes/raw").read(PART), RAW[PART.slices])
    assert np.array_equal(opened(tmp_path, candidates=("volumes/raw",)).read(PART), RAW[PART.slices])
    with pytest.raises(UserError, match=r"has no dataset 'nothing'; it has other00, other01, .*, …"):
        opened(tmp_path, "nothing")


def test_several_customary_names_are_asked_about(tmp_path: Path) -> None:
    write_group(tmp_path, {})
    write_zarr(tmp_path / "raw", RAW)
    write_zarr(tmp_path / "main", RAW)
    with pytest.raises(UserError, match="several candidates \\(raw, main\\)"):
        opened(tmp_path, candidates=("raw", "main"))


def test_the_only_array_of_a_container_needs_no_name(tmp_path: Path) -> None:
    write_n5(tmp_path / "in.n5/deep/inside", RAW)
    wanted = Wanted(only=True, placed=False)
    volume = open_at(Location.of(tmp_path / "in.n5"), wanted)
    assert volume is not None and volume.name.endswith("in.n5/deep/inside")
    write_n5(tmp_path / "in.n5/more", RAW)
    assert open_at(Location.of(tmp_path / "in.n5"), wanted) is None


def test_images_of_a_container_are_listed_for_their_levels(tmp_path: Path) -> None:
    """bioformats2raw writes images 0, 1, …; who is told of 0/0 and 0/1 instead names a level, without its place."""
    write_group(tmp_path, {"bioformats2raw.layout": 3})
    for image in ("0", "1"):
        for level in ("0", "1"):
            write_zarr(tmp_path / image / level, RAW)
        write_zarr(tmp_path / image / "labels/cells/0", RAW)
        write_group(tmp_path / image, ngff({"0": [scale(40, 6, 4)], "1": [scale(40, 12, 8)]}))
    with pytest.raises(UserError, match=r"it has 0, 0/labels/cells/0, 1, 1/labels/cells/0$"):
        opened(tmp_path, "raw")
    assert np.array_equal(opened(tmp_path, "0").read(PART), RAW[PART.slices])
    (tmp_path / "1" / ".zattrs").write_text('{"multiscales": [')
    with pytest.raises(UserError, match=r"it has 0, 0/labels/cells/0, 1/0, 1/1"):
        opened(tmp_path, "raw")


def test_a_folder_that_says_nothing_is_a_group_if_the_named_array_lies_in_it(tmp_path: Path) -> None:
    write_n5(tmp_path / "em/volumes/raw", RAW)
    assert np.array_equal(opened(tmp_path / "em", "volumes/raw").read(PART), RAW[PART.slices])
    with pytest.raises(UserError, match="is no zarr"):
        opened(tmp_path / "em", "volumes/labels")


def test_names_do_not_lead_out_of_the_container(tmp_path: Path) -> None:
    write_group(tmp_path / "in.zarr", {})
    write_zarr(tmp_path / "secret", RAW)
    with pytest.raises(UserError, match="has no dataset"):
        opened(tmp_path / "in.zarr", "../secret")


codecs = pytest.mark.parametrize(
    "codec", [None, numcodecs.Zlib(), numcodecs.GZip(), numcodecs.BZ2(), numcodecs.Zstd(), numcodecs.Blosc()]
)


@codecs
def test_common_codecs_as_zarr_python_writes_them(tmp_path: Path, codec: Any) -> None:
    write_zarr(tmp_path / "zarr", RAW, compressor=codec)
    assert np.array_equal(opened(tmp_path / "zarr").read(PART), RAW[PART.slices])


@codecs
def test_common_codecs_in_n5_as_zarr_python_2_writes_them(tmp_path: Path, codec: Any) -> None:
    n5 = pytest.importorskip("zarr.n5", reason="zarr-python 3 writes no N5")
    if codec is not None and codec.codec_id == "zlib":
        pytest.skip("N5 has no such codec")
    group = zarr.open_group(n5.N5Store(str(tmp_path)), mode="w")
    group.create_dataset("a", data=RAW, chunks=(8, 16, 16), compressor=codec)
    assert np.array_equal(opened(tmp_path, "a").read(PART), RAW[PART.slices])


@pytest.mark.parametrize("codec", ["pickle", "json2", "msgpack2", "vlen-utf8"])
@pytest.mark.parametrize("place", ["compressor", "filters"])
def test_codecs_of_objects_are_refused_by_us_whatever_they_say_they_hold(
    tmp_path: Path, codec: str, place: str
) -> None:
    write_zarr(tmp_path / "zarr", RAW)
    file = tmp_path / "zarr" / ".zarray"
    metadata = json.loads(file.read_text())
    metadata[place] = {"id": codec} if place == "compressor" else [{"id": codec, "protocol": 5}]
    file.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=f"its codec '{codec}' decodes Python objects"):
        opened(tmp_path / "zarr")


def test_codecs_of_objects_inside_others_are_found() -> None:
    inner = [{"name": "bytes"}, {"name": "numcodecs.pickle", "configuration": {}}]
    shards = {"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 2, 2], "codecs": inner}}
    with pytest.raises(UserError, match=r"numcodecs\.pickle"):
        refuse_codecs_of_objects({"codecs": [shards]}, "here")
    with pytest.raises(UserError, match="json2"):
        refuse_codecs_of_objects({"compression": {"type": "json2"}}, "here")
    refuse_codecs_of_objects({"codecs": [{"name": "zstd"}, "crc32c"], "attributes": {"name": "pickle"}}, "here")


def test_a_run_with_a_codec_of_objects_is_refused(tmp_path: Path) -> None:
    volume = create_volume(tmp_path / "run.zarr", "raw", (4, 4, 4), "uint8", chunks=(4, 4, 4))
    volume.write(volume.box, np.ones((4, 4, 4), np.uint8))
    file = tmp_path / "run.zarr" / "raw" / "s0" / "zarr.json"
    document = json.loads(file.read_text())
    document["codecs"].append({"name": "numcodecs.pickle"})
    file.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"numcodecs\.pickle.*decodes Python objects"):
        open_volume(tmp_path / "run.zarr", "raw")


def test_python_objects_are_never_decoded(tmp_path: Path) -> None:
    write_zarr(tmp_path / "zarr", RAW)
    metadata = json.loads((tmp_path / "zarr" / ".zarray").read_text())
    objects = {**metadata, "dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}], "fill_value": 0}
    (tmp_path / "zarr" / ".zarray").write_text(json.dumps(objects))
    with pytest.raises(UserError, match="Python objects are never decoded"):
        opened(tmp_path / "zarr")
    np.save(tmp_path / "in.npy", np.array([[[print]]], dtype=object))
    with pytest.raises(UserError, match="cannot be read as npy"):
        opened(tmp_path / "in.npy")
    write_n5(tmp_path / "n5", RAW, {"isLabelMultiset": True})
    with pytest.raises(UserError, match="label multisets"):
        opened(tmp_path / "n5")


def test_damage_is_told_in_one_line(tmp_path: Path) -> None:
    write_zarr(tmp_path / "a", RAW)
    (tmp_path / "a/0.0.0").write_bytes((tmp_path / "a/0.0.0").read_bytes()[:20])
    with pytest.raises(UserError, match="a chunk is damaged or cannot be decoded"):
        opened(tmp_path / "a").read(PART)
    (tmp_path / "a/.zarray").write_text('{"zarr_format": 2, "sha')
    with pytest.raises(UserError, match=r"\.zarray is damaged .*; correct it, or write the array again"):
        opened(tmp_path / "a")
    with pytest.raises(UserError, match="there is no file or folder"):
        opened(tmp_path / "nothing")
    (tmp_path / "text").write_text("nothing of ours")
    with pytest.raises(UserError, match="is no zarr, OME-NGFF, N5, precomputed, HDF5, TIFF or npy"):
        opened(tmp_path / "text")
    write_zarr3(tmp_path / "both", RAW)
    write_zarr(tmp_path / "both2", RAW)
    (tmp_path / "both/.zarray").write_bytes((tmp_path / "both2/.zarray").read_bytes())
    with pytest.raises(UserError, match="zarr 2 and zarr 3 at once; name the format"):
        opened(tmp_path / "both")
    assert np.array_equal(opened(tmp_path / "both", format="zarr3").read(PART), RAW[PART.slices])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read_are_told(tmp_path: Path) -> None:
    write_zarr(tmp_path / "a", RAW)
    (tmp_path / "a/0.0.0").chmod(0)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        opened(tmp_path / "a").read(PART)


def test_a_filter_of_hdf5_that_is_not_installed_is_named_with_its_cure(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "in.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((8, 16, 16))
        properties.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, (0, 0, 0, 2))
        space = h5py.h5s.create_simple(RAW.shape)
        h5py.h5d.create(file.id, b"raw", h5py.h5t.NATIVE_UINT8, space, properties)
    with pytest.raises(UserError, match=r"filter 32008 .bitshuffle.*hdf5plugin.*HDF5_PLUGIN_PATH"):
        opened(tmp_path / "in.h5", "raw")


def test_opening_costs_the_same_however_large_the_volume_is(tmp_path: Path) -> None:
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(tmp_path / "a")},
        "metadata": {
            "shape": [10**6] * 3,
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [64] * 3}},
        },
    }
    ts.open(spec, create=True).result()
    volume = opened(tmp_path / "a")
    identity = volume.identity(samples=4)
    assert identity["metadata"]["shape"] == [10**6] * 3
