"""Volumes behind web servers and in buckets: real servers on this machine, slow and faulty ones among them."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bucket_server import bucket_server
from stored_arrays import ngff, raw_voxels, scale, write_group, write_n5, write_precomputed, write_zarr, write_zarr3
from web_server import WebServer, serving

from pipeline.errors import UserError
from pipeline.volumes import create_volume, storage
from pipeline.volumes.arrays import Box
from pipeline.volumes.locations import Location
from pipeline.volumes.opening import Wanted, open_at
from pipeline.volumes.storage_errors import StorageUnavailable
from pipeline.volumes.volume import Volume

RAW = raw_voxels()
PART = Box.of_shape(RAW.shape).grow((-3, -7, -5), (-2, -9, -11))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    """A web server of the test's folder."""
    with serving(tmp_path) as server:
        yield server


def opened(url: str, dataset: str | None = None, **wanted: Any) -> Volume:
    """The volume of a URL."""
    volume = open_at(Location.of(url), Wanted(dataset, placed=False, where="volumes.sources.s", **wanted))
    assert volume is not None
    return volume


def refused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_every_format_is_read_over_http_as_from_the_disk(tmp_path: Path, web: WebServer) -> None:
    write_group(tmp_path / "ome", ngff({"0": [scale(40, 3.58, 8)]}, unit="nanometer"))
    write_zarr(tmp_path / "ome/0", RAW, dimension_separator="/")
    write_zarr3(tmp_path / "shards", RAW, shard=(16, 32, 32))
    write_n5(tmp_path / "in.n5/volumes/raw", RAW, {"resolution": [4, 6, 40]})
    write_precomputed(tmp_path / "precomputed", RAW, voxel_offset=(100, 20, 3))
    for name, dataset in (
        ("ome", None),
        ("ome", "0"),
        ("shards", None),
        ("in.n5", "volumes/raw"),
        ("precomputed", None),
    ):
        volume = opened(f"{web.url}/{name}", dataset)
        local = opened(str(tmp_path / name), dataset)
        assert np.array_equal(volume.read(PART), RAW[PART.slices])
        assert volume.placement == local.placement
        assert volume.identity()["voxels"] == local.identity()["voxels"]
    assert opened(f"{web.url}/ome").voxel_size == (40, 3.58, 8)


def test_only_the_chunks_of_a_box_are_asked_for(tmp_path: Path, web: WebServer) -> None:
    write_zarr(tmp_path / "in.zarr", RAW)
    volume = opened(f"{web.url}/in.zarr")
    web.requests.clear()
    volume.read(Box.of_shape((8, 16, 16)))
    assert web.requests == ["/in.zarr/0.0.0"]


def test_missing_chunks_over_http_are_zeros_and_are_named(tmp_path: Path, web: WebServer) -> None:
    write_zarr(tmp_path / "in.zarr", RAW)
    (tmp_path / "in.zarr/0.0.0").unlink()
    volume = opened(f"{web.url}/in.zarr")
    assert not volume.read(Box.of_shape((8, 16, 16))).any()
    assert volume.missing(volume.box) == ["0.0.0"]


def test_passing_trouble_is_waited_out(tmp_path: Path, web: WebServer) -> None:
    write_zarr(tmp_path / "in.zarr", RAW)
    web.delay = 0.02
    web.failures = 2
    volume = opened(f"{web.url}/in.zarr")
    web.dropped = 2
    web.failures = 2
    assert np.array_equal(volume.read(PART), RAW[PART.slices])
    assert web.dropped == 0 and web.failures == 0


def test_lasting_trouble_of_a_server_is_told_as_passing_in_one_line(tmp_path: Path, web: WebServer) -> None:
    write_zarr(tmp_path / "in.zarr", RAW)
    volume = opened(f"{web.url}/in.zarr")
    web.failures = 10**6
    with pytest.raises(StorageUnavailable, match=r"in.zarr: cannot be read: .*check the address and the network"):
        volume.read(PART)
    web.failures = 0
    assert np.array_equal(volume.read(PART), RAW[PART.slices])


def test_a_refused_connection_is_told_soon() -> None:
    with pytest.raises(StorageUnavailable, match=r"cannot be read: .*[Cc]onnect") as refused:
        opened(f"http://127.0.0.1:{refused_port()}/in.zarr")
    assert "\n" not in str(refused.value) and "tensorstore_spec" not in str(refused.value)


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, web: WebServer) -> None:
    monkeypatch.setattr(storage, "METADATA_WAIT", 0.3)
    web.delay = 2
    with pytest.raises(StorageUnavailable, match="has not answered"):
        opened(f"{web.url}/in.zarr")


def test_nothing_there_and_no_access_are_told_apart(tmp_path: Path, web: WebServer) -> None:
    with pytest.raises(UserError, match=r"is no zarr, .*the URL must name the array or group"):
        opened(f"{web.url}/nothing")
    web.denied = True
    with pytest.raises(UserError, match="access is denied"):
        opened(f"{web.url}/nothing")
    write_zarr(tmp_path / "in.zarr", RAW)  # what does not exist beside it is denied, as buckets do
    assert np.array_equal(opened(f"{web.url}/in.zarr").read(PART), RAW[PART.slices])


def test_an_account_from_the_environment_opens_and_is_not_shown(
    tmp_path: Path, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zarr(tmp_path / "in.zarr", RAW)
    web.password = base64.b64encode(b"reader:s3cret").decode()
    monkeypatch.setenv("EM_PASSWORD", "s3cret")
    url = web.url.replace("://", "://reader:${EM_PASSWORD}@") + "/in.zarr"
    assert np.array_equal(opened(url).read(PART), RAW[PART.slices])
    monkeypatch.setenv("EM_PASSWORD", "wr0ng")
    with pytest.raises(UserError, match="access is denied; name an account") as refused:
        opened(url)
    assert "wr0ng" not in str(refused.value) and web.password not in str(refused.value)


def test_a_server_without_byte_ranges_is_told_where_they_are_needed(tmp_path: Path, web: WebServer) -> None:
    web.ranges = False
    write_zarr3(tmp_path / "shards", RAW, shard=(16, 32, 32))
    with pytest.raises(UserError, match="byte ranges"):
        opened(f"{web.url}/shards").read(PART)


def test_a_bucket_is_written_and_read(tmp_path: Path) -> None:
    with bucket_server("lab"):
        container = Location.of("s3://lab/runs/volume.zarr")
        volume = create_volume(container, "raw", RAW.shape, "uint8", chunks=(8, 32, 32), voxel_size=(40, 3.58, 8))
        volume.write(volume.box, RAW)
        again = opened("s3://lab/runs/volume.zarr/raw")
        assert np.array_equal(again.read(PART), RAW[PART.slices])
        assert again.voxel_size == (40, 3.58, 8)
        assert again.missing(again.box) == []
        storage.open_store(container).write("raw/s0/c/0/0/0", None).result()
        assert again.missing(again.box) == ["c/0/0/0"]
        assert opened("s3://lab/runs/volume.zarr", "raw").shape == RAW.shape


def test_a_missing_bucket_and_missing_credentials_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with bucket_server("lab"):
        with pytest.raises(UserError, match=r"there is no bucket 'labb'.*AWS_ENDPOINT_URL"):
            opened("s3://labb/raw.zarr")
        with pytest.raises(UserError, match="there is no bucket 'labb'"):
            create_volume(Location.of("s3://labb/a"), "raw", (8, 8, 8), "uint8", chunks=(8, 8, 8))
        with pytest.raises(UserError, match="is no zarr"):
            opened("s3://lab/nothing")
        create_volume(Location.of("s3://lab/a"), "raw", (8, 8, 8), "uint8", chunks=(8, 8, 8))
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(UserError, match="access is denied; set AWS_ACCESS_KEY_ID"):
            opened("s3://lab/a")


def test_a_bucket_server_that_is_not_there_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{refused_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret of tests")
    with pytest.raises(StorageUnavailable, match="cannot be read") as refused:
        opened("s3://lab/raw.zarr")
    assert "a secret of tests" not in str(refused.value)
