"""A chunk that was there at first use of a volume is never read as zeros; one that was missing then is empty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bucket_server import bucket_server
from funlib.geometry import Coordinate
from stored_arrays import raw_voxels, write_n5, write_precomputed, write_zarr, write_zarr3
from web_server import serving

from pipeline.errors import UserError
from pipeline.volumes import Box
from pipeline.volumes.locations import Location
from pipeline.volumes.opening import Wanted, open_at
from pipeline.volumes.present_chunks import WatchedVolume, as_json, from_json, lost_chunks, present_chunks
from pipeline.volumes.storage import open_store
from pipeline.volumes.volume import Volume

DATA = raw_voxels() | 1
"""No voxel is 0. In chunks of 8 x 16 x 16, there are 2 x 3 x 3."""
CHUNK = Coordinate(8, 16, 16)
WHOLE = Box.of_shape(DATA.shape)


def write_with_channels(path: Path) -> None:
    write_zarr(path, np.stack([DATA, DATA]))


WRITERS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "zarr 2": (lambda path: write_zarr(path, DATA), "0.1.2", "1.0.1"),
    "zarr 2, nested": (lambda path: write_zarr(path, DATA, dimension_separator="/"), "0/1/2", "1/0/1"),
    "zarr 2, a channel": (write_with_channels, "1.0.1.2", "1.1.0.1"),
    "zarr 3": (lambda path: write_zarr3(path, DATA), "c/0/1/2", "c/1/0/1"),
    "zarr 3, shards": (lambda path: write_zarr3(path, DATA, shard=(8, 16, 16)), "c/0/1/2", "c/1/0/1"),
    "N5": (lambda path: write_n5(path, DATA), "2/1/0", "1/0/1"),
    "precomputed": (
        lambda path: write_precomputed(path, DATA),
        "4_6_40/32-44_16-32_0-8",
        "4_6_40/16-32_0-16_8-12",
    ),
}
"""How a volume is written, a file of it that is left out, and one that is lost: at (0, 1, 2) and (1, 0, 1)."""


def opened(place: str | Path, kind: str) -> Volume:
    channels = {"channel": 1, "axes": "czyx"} if "channel" in kind else {}
    volume = open_at(Location.of(place), Wanted(placed=False, **channels))  # type: ignore[arg-type]
    assert volume is not None
    return volume


def watched(volume: Volume, present: np.ndarray) -> WatchedVolume:
    """As a run opens it, whose record went through a file."""
    return WatchedVolume(**vars(volume), present=from_json(as_json(present)), cure="put it back")


def cell(z: int, y: int, x: int) -> Box:
    """The voxels of a chunk."""
    begin = Coordinate(z, y, x) * CHUNK
    return Box(begin, begin + CHUNK).intersect(WHOLE)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_lost_chunk_is_an_error_and_one_that_never_was_is_empty(tmp_path: Path, kind: str) -> None:
    write, never, later = WRITERS[kind]
    write(tmp_path / "volume")
    (tmp_path / "volume" / never).unlink()
    volume = opened(tmp_path / "volume", kind)
    present = present_chunks(volume, most=18)
    assert present is not None and np.argwhere(~present).tolist() == [[0, 1, 2]]
    assert present_chunks(volume, most=17) is None
    expected = DATA.copy()
    expected[cell(0, 1, 2).slices] = 0
    np.testing.assert_array_equal(watched(volume, present).read(WHOLE), expected)
    (tmp_path / "volume" / later).unlink()
    volume = opened(tmp_path / "volume", kind)
    for box in (WHOLE, cell(1, 0, 1), Box(cell(1, 0, 1).begin, cell(1, 0, 1).begin + Coordinate(1, 1, 1))):
        with pytest.raises(UserError, match=rf"chunk {later} is lost, which was there .*; put it back"):
            watched(volume, present).read(box)
    np.testing.assert_array_equal(watched(volume, present).read(cell(0, 0, 1)), DATA[cell(0, 0, 1).slices])
    now = present_chunks(volume, most=18)
    assert now is not None and lost_chunks(volume, present, now) == [later]


@pytest.mark.parametrize("kind", ["zarr 2", "zarr 3", "N5", "precomputed"])
def test_a_bucket_is_listed_too(tmp_path: Path, kind: str) -> None:
    write, never, later = WRITERS[kind]
    folder = tmp_path / "volume"
    write(folder)
    (folder / never).unlink()
    place = f"s3://lab/{kind.replace(' ', '_')}"
    with bucket_server("lab"):
        store = open_store(Location.of(place))
        for path in folder.rglob("*"):
            if path.is_file():
                store.write(str(path.relative_to(folder)), path.read_bytes()).result()
        volume = opened(place, kind)
        present = present_chunks(volume, most=18)
        assert present is not None and np.argwhere(~present).tolist() == [[0, 1, 2]]
        store.write(later, None).result()
        with pytest.raises(UserError, match=f"chunk {later} is lost"):
            watched(volume, present).read(WHOLE)


def test_chunks_of_zeros_that_are_there_are_no_loss(tmp_path: Path) -> None:
    write_zarr(tmp_path, np.zeros_like(DATA), write_empty_chunks=True)
    volume = opened(tmp_path, "zarr 2")
    present = present_chunks(volume, most=100)
    assert present is not None and present.all()
    assert not watched(volume, present).read(volume.box).any()


def test_behind_a_web_server_nothing_is_listed(tmp_path: Path) -> None:
    write_zarr(tmp_path / "volume", DATA)
    with serving(tmp_path) as server:
        assert present_chunks(opened(f"{server.url}/volume", "zarr 2"), most=100) is None


def test_a_list_of_chunks_is_small_and_a_damaged_one_is_no_list() -> None:
    present = np.ones((100, 200, 500), dtype=bool)
    present[3, 4, 5] = False
    document = as_json(present)
    assert len(document["bits"]) < 10_000, "of ten million chunks"
    np.testing.assert_array_equal(from_json(document), present)
    for damage in ({"bits": document["bits"][:-8]}, {"grid": [100, 200, 501]}, {"there": 7}, {"bits": 5}):
        with pytest.raises(ValueError, match="damaged"):
            from_json({**document, **damage})
