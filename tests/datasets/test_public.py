"""Public data sets: the registry is sound, downloads are checked, and a failed one can be mended by hand."""

from __future__ import annotations

import functools
import hashlib
import http.server
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from imported_sources import import_source

from pipeline.config import PublicSource
from pipeline.datasets import public, registry
from pipeline.datasets.registry import DATASETS, PublicDataset, PublicFile
from pipeline.errors import UserError
from pipeline.volumes import open_volume

RAW = np.random.default_rng(0).integers(0, 256, (4, 20, 20), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 9, (4, 20, 20), dtype=np.uint64)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine: its address and the folder that it publishes."""
    folder = tmp_path / "published"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def entry(file: PublicFile, **fields: object) -> PublicDataset:
    values = {
        "name": "test",
        "description": "",
        "shape": RAW.shape,
        "voxel_size": (40, 4, 4),
        "files": (file,),
        "raw_file": file.name,
        "raw": "volumes/raw",
        "labels_file": None,
        "labels": "volumes/labels/neuron_ids",
        "megabytes": None,
        "licence": "",
        "reference": "",
        "page": "",
    }
    return PublicDataset(**{**values, **fields})  # type: ignore[arg-type]


def cremi(path: Path) -> str:
    with h5py.File(path, "w") as file:
        file["volumes/raw"] = RAW
        file["volumes/raw"].attrs["resolution"] = (40.0, 4.0, 4.0)
        file["volumes/labels/neuron_ids"] = LABELS
    return hashlib.sha256(path.read_bytes()).hexdigest()


def do_import(tmp_path: Path, name: str) -> None:
    source = PublicSource(kind="public", name=name, cache=str(tmp_path / "cache"))
    import_source("lab", source, tmp_path / "volume.zarr", (4, 16, 16))
    np.testing.assert_array_equal(open_volume(tmp_path / "volume.zarr", "raw").array[:], RAW)


@pytest.mark.parametrize("name", DATASETS)
def test_every_entry_is_complete(name: str) -> None:
    dataset = DATASETS[name]
    assert dataset.name == name == name.lower()
    assert all((dataset.description, dataset.licence, dataset.reference, dataset.page))
    assert len(dataset.shape) == len(dataset.voxel_size) == 3
    for file in dataset.files:
        if file.url is not None:
            assert file.url.startswith("https://")
            assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", file.checksum or "")
    names = [file.name.removesuffix(".zip") for file in dataset.files]
    for needed in filter(None, (dataset.raw_file, dataset.labels_file)):
        assert needed.split("/")[0] in names


def test_promised_data_sets_are_there() -> None:
    assert {"cremi_a", "cremi_b", "cremi_c", "snemi3d", "ac3", "ac4", "isbi2012", "fib25"} <= set(DATASETS)


def test_download_check_and_import(tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = server
    sha256 = cremi(folder / "a.hdf")
    monkeypatch.setitem(DATASETS, "test", entry(PublicFile("a.hdf", f"{url}/a.hdf", f"sha256:{sha256}")))
    do_import(tmp_path, "test")
    np.testing.assert_array_equal(open_volume(tmp_path / "volume.zarr", "labels").array[:], LABELS)
    (tmp_path / "cache" / "a.hdf").unlink()
    do_import(tmp_path, "test")  # complete: not downloaded again
    assert not (tmp_path / "cache" / "a.hdf").exists()


def test_an_archive_of_tiff_stacks(tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of SNEMI3D."""
    url, folder = server
    members = ("image/train-input.tif", "seg/train-labels.tif")
    volumes: tuple[np.ndarray, ...] = (RAW, LABELS.astype(np.uint16))
    for member, volume in zip(members, volumes, strict=True):
        (folder / member).parent.mkdir()
        tifffile.imwrite(folder / member, volume, photometric="minisblack")
    with zipfile.ZipFile(folder / "s.zip", "w") as archive:
        for member in members:
            archive.write(folder / member, member)
    md5 = hashlib.md5((folder / "s.zip").read_bytes()).hexdigest()
    file = PublicFile("s.zip", f"{url}/s.zip", f"md5:{md5}", members)
    fields = {"raw_file": f"s/{members[0]}", "raw": None, "labels_file": f"s/{members[1]}", "labels": None}
    monkeypatch.setitem(DATASETS, "test", entry(file, **fields))
    do_import(tmp_path, "test")
    np.testing.assert_array_equal(open_volume(tmp_path / "volume.zarr", "labels").array[:], LABELS)


def test_a_wrong_checksum_is_refused(tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = server
    cremi(folder / "a.hdf")
    monkeypatch.setitem(DATASETS, "test", entry(PublicFile("a.hdf", f"{url}/a.hdf", f"sha256:{'0' * 64}")))
    with pytest.raises(UserError, match=r"a\.hdf"):
        do_import(tmp_path, "test")
    assert not (tmp_path / "cache" / "a.hdf").exists()
    assert not (tmp_path / "volume.zarr" / "raw").exists()


def test_a_damaged_file_in_the_cache_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    sha256 = cremi(tmp_path / "cache" / "a.hdf")
    with (tmp_path / "cache" / "a.hdf").open("ab") as file:
        file.write(b"x")
    monkeypatch.setitem(DATASETS, "test", entry(PublicFile("a.hdf", "https://none.invalid/a.hdf", f"sha256:{sha256}")))
    with pytest.raises(UserError, match=r"cache/a\.hdf has the sha256 .*delete it and run again"):
        do_import(tmp_path, "test")


def test_a_failed_download_says_what_to_place_where(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    sha256 = cremi(folder / "elsewhere.hdf")
    monkeypatch.setitem(DATASETS, "test", entry(PublicFile("a.hdf", f"{url}/a.hdf", f"sha256:{sha256}")))
    with pytest.raises(UserError) as caught:
        do_import(tmp_path, "test")
    message, place = str(caught.value), tmp_path / "cache" / "a.hdf"
    assert f"{url}/a.hdf" in message and str(place) in message and "\n" not in message
    assert not place.exists()
    (folder / "elsewhere.hdf").rename(place)
    do_import(tmp_path, "test")


def test_an_unpublished_checksum_is_recorded_and_held_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files without a direct download (AC3) are placed by hand; the first version becomes the reference."""
    monkeypatch.setitem(DATASETS, "test", entry(PublicFile("a.hdf", None, None), page="https://lab.example"))
    place = tmp_path / "cache" / "a.hdf"
    with pytest.raises(UserError, match=rf"no direct download: obtain a\.hdf from https://lab\.example .*{place}"):
        do_import(tmp_path, "test")
    place.parent.mkdir(exist_ok=True)
    cremi(place)
    do_import(tmp_path, "test")
    with h5py.File(place, "a") as file:
        file["volumes/raw"][0, 0, 0] ^= 1
    with pytest.raises(UserError, match="recorded at the first use"):
        public.fetch(registry.DATASETS["test"].files[0], place.parent, registry.DATASETS["test"], "x")


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMDISTILL_CACHE", str(tmp_path / "lab"))
    assert public.cache_folder(None) == tmp_path / "lab"
    assert public.cache_folder(str(tmp_path / "mine")) == tmp_path / "mine"


def test_the_list_of_public_data_sets() -> None:
    done = subprocess.run([sys.executable, "-m", "pipeline.datasets"], capture_output=True, text=True, check=True)
    for name, dataset in DATASETS.items():
        assert name in done.stdout and dataset.licence in done.stdout and dataset.reference in done.stdout
