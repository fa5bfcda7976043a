"""Whether a volume that is read where it lies has changed."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from stored_arrays import raw_voxels, write_n5, write_zarr
from web_server import serving

from pipeline.volumes import identity as identities
from pipeline.volumes.identity import Identity, what_changed
from pipeline.volumes.locations import Location
from pipeline.volumes.opening import Wanted, open_at

LABELS = raw_voxels(dtype="uint64")


def identity(place: Path | str, dataset: str | None = None, samples: int = 16) -> Identity:
    """The identity of what lies there now."""
    volume = open_at(Location.of(place), Wanted(dataset, placed=False))
    assert volume is not None
    return volume.identity(samples)


def test_one_voxel_corrected_in_place_is_noticed_in_every_format(tmp_path: Path) -> None:
    write_zarr(tmp_path / "zarr", LABELS)
    write_n5(tmp_path / "n5", LABELS)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["labels"] = LABELS
    places = ((tmp_path / "zarr", None), (tmp_path / "n5", None), (tmp_path / "in.h5", "labels"))
    before = [identity(*place) for place in places]
    assert [identity(*place) for place in places] == before
    zarr.open(str(tmp_path / "zarr"), mode="r+")[3, 20, 20] = 77
    block = tmp_path / "n5/1/1/0"
    block.write_bytes((tmp_path / "n5/0/0/0").read_bytes())
    with h5py.File(tmp_path / "in.h5", "r+") as file:
        file["labels"][3, 20, 20] = 77
    for place, old in zip(places, before, strict=True):
        assert what_changed(old, identity(*place)) == "its files"
        assert old["voxels"] != identity(*place)["voxels"]


def test_a_correction_outside_the_sample_is_seen_by_its_file(tmp_path: Path) -> None:
    write_zarr(tmp_path, LABELS)
    before = identity(tmp_path, samples=1)
    for name in ("0.0.0", "0.1.1", "1.2.2"):
        os.utime(tmp_path / name, ns=(1, 1))
    after = identity(tmp_path, samples=1)
    assert after["voxels"] == before["voxels"] and what_changed(before, after) == "its files"


def test_sampled_voxels_decide_where_files_are_too_many_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "FILES", 3)
    write_zarr(tmp_path, LABELS)
    before = identity(tmp_path, samples=100)
    assert before["files"] is None
    zarr.open(str(tmp_path), mode="r+")[11, 39, 43] = 77
    assert what_changed(before, identity(tmp_path, samples=100)) == "its voxels"


def test_a_correction_behind_a_web_server_is_noticed(tmp_path: Path) -> None:
    write_zarr(tmp_path / "in.zarr", LABELS)
    with serving(tmp_path) as server:
        before = identity(f"{server.url}/in.zarr", samples=100)
        assert what_changed(before, identity(f"{server.url}/in.zarr", samples=100)) is None
        zarr.open(str(tmp_path / "in.zarr"), mode="r+")[3, 20, 20] = 77
        assert what_changed(before, identity(f"{server.url}/in.zarr", samples=100)) == "its voxels"


def test_another_voxel_size_or_shape_is_told_as_such(tmp_path: Path) -> None:
    write_zarr(tmp_path / "a", LABELS, {"resolution": [40, 4, 4]})
    before = identity(tmp_path / "a")
    write_zarr(tmp_path / "a", LABELS, {"resolution": [40, 4, 4.5]})
    assert what_changed(before, identity(tmp_path / "a")) == "its shape, type or place"
    write_zarr(tmp_path / "a", np.ones((9, 9, 9), "u8"), {"resolution": [40, 4, 4]})
    assert what_changed(before, identity(tmp_path / "a")) == "its shape, type or place"
