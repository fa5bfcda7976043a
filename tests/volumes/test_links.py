"""Files of strangers whose voxels are another file's: refused, unless the config names that file."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from imported_sources import import_source, run_of_sources
from stored_arrays import write_zarr, write_zarr3

from pipeline.config import FileSource
from pipeline.errors import UserError
from pipeline.stages.importing import ensure_imported
from pipeline.volumes import Box, open_volume
from pipeline.volumes.locations import Location
from pipeline.volumes.opening import Wanted, open_at
from pipeline.volumes.volume import Volume

SECRET = bytes(range(256)) * 16
"""What a user may read, and a stranger wants to see in a segmentation."""
SHAPE = (4, 32, 32)
BLOCK = (4, 16, 16)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside of the stranger's folder."""
    path = tmp_path / "home" / "passwords"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    (tmp_path / "stranger").mkdir()
    return path


def with_external_storage(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", SHAPE, np.uint8, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def with_external_link(path: Path, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".h5"), "w") as file:
        file["private"] = np.frombuffer(SECRET, np.uint8).reshape(SHAPE)
    with h5py.File(path, "w") as file:
        file["raw"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "private")


def with_external_group(path: Path, secret: Path) -> None:
    """The link is a group on the way to the dataset, behind a soft link."""
    with h5py.File(secret.with_suffix(".h5"), "w") as file:
        file["raw"] = np.frombuffer(SECRET, np.uint8).reshape(SHAPE)
    with h5py.File(path, "w") as file:
        file["elsewhere"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/")
        file["volumes"] = h5py.SoftLink("/elsewhere")


def as_virtual_dataset(path: Path, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".h5"), "w") as file:
        file["private"] = np.frombuffer(SECRET, np.uint8).reshape(SHAPE)
    layout = h5py.VirtualLayout(SHAPE, np.uint8)
    layout[:] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "private", SHAPE)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("raw", layout)


def as_virtual_dataset_of_external_storage(path: Path, secret: Path) -> None:
    """The virtual dataset stays in its file, what it shows does not."""
    layout = h5py.VirtualLayout(SHAPE, np.uint8)
    layout[:] = h5py.VirtualSource(".", "inner", SHAPE)
    with h5py.File(path, "w") as file:
        file.create_dataset("inner", SHAPE, np.uint8, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        file.create_virtual_dataset("raw", layout)


HDF5 = {
    "external storage": (with_external_storage, None),
    "external link": (with_external_link, None),
    "external group": (with_external_group, "volumes/raw"),
    "virtual dataset": (as_virtual_dataset, None),
    "virtual dataset of external storage": (as_virtual_dataset_of_external_storage, None),
}


@pytest.mark.parametrize("case", HDF5)
def test_hdf5_of_a_stranger_shows_no_other_file(case: str, tmp_path: Path, secret: Path) -> None:
    make, raw = HDF5[case]
    path = tmp_path / "stranger" / "a.h5"
    make(path, secret)
    source = FileSource(path=str(path), raw=raw, voxel_size=(40, 4, 4))
    container = tmp_path / "run" / "volume.zarr"
    with pytest.raises(UserError, match=r"volumes\.sources\.lab\.allow_links: .*(leads|link) to .*/home/passwords"):
        import_source("lab", source, container, BLOCK)
    assert not container.exists()
    with pytest.raises(UserError, match="allow_links"):
        open_at(Location.of(path), Wanted(raw or "raw", voxel_size=(40, 4, 4)))
    allowed = source.model_copy(update={"allow_links": (str(secret.parent),)})
    assert import_source("lab", allowed, container, BLOCK)
    np.testing.assert_array_equal(open_volume(container, "raw").array[:].ravel(), np.frombuffer(SECRET, np.uint8))


def test_links_within_the_file_are_read(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
    layout = h5py.VirtualLayout(SHAPE, np.uint8)
    layout[:] = h5py.VirtualSource(".", "inner/raw", SHAPE)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["inner/raw"] = raw
        file.create_virtual_dataset("shown", layout)
        file["raw"] = h5py.SoftLink("shown")
    container = tmp_path / "run" / "volume.zarr"
    import_source("lab", FileSource(path=str(tmp_path / "a.h5"), voxel_size=(40, 4, 4)), container, BLOCK)
    np.testing.assert_array_equal(open_volume(container, "raw").array[:], raw)


def test_names_of_datasets_are_listed_without_opening_other_files(tmp_path: Path) -> None:
    """A named pipe would be waited for without end."""
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"] = np.zeros(SHAPE, np.uint8)
        file["two"] = h5py.ExternalLink(str(tmp_path / "pipe"), "/")
    with pytest.raises(UserError, match=r"name the dataset to use; .* has one$"):
        import_source("lab", FileSource(path=str(tmp_path / "a.h5")), tmp_path / "volume.zarr", BLOCK)


CHUNK_FILE = {"zarr2": "0.0.0", "zarr2 nested": "0/0/0", "n5": "0/0/0", "zarr3": "c/0/0/0"}


def stranger_container(folder: Path, kind: str) -> Path:
    """An array of four chunks without compression: any file of the right length is a chunk."""
    data = np.full((4, 64, 64), 7, np.uint8)
    if kind == "n5":
        array = zarr.open_array(
            zarr.N5Store(str(folder / "a.n5")), "w", data.shape, chunks=SHAPE, dtype="u1", path="raw"
        )
        array[:] = data
        array.attrs["resolution"] = [4, 4, 40]
        return folder / "a.n5"
    if kind == "zarr3":
        write_zarr3(folder / "a.zarr", data, {"voxel_size": [40, 4, 4]})
        return folder / "a.zarr"
    nested = {"dimension_separator": "/"} if kind == "zarr2 nested" else {}
    write_zarr(folder / "a.zarr", data, {"voxel_size": [40, 4, 4]}, chunks=SHAPE, compressor=None, **nested)
    return folder / "a.zarr"


def opened(path: Path, allowed: tuple[str, ...] = ()) -> Volume:
    found = open_at(Location.of(path), Wanted(None, ("raw",), allow_links=allowed))
    assert found is not None
    return found


@pytest.mark.parametrize("kind", CHUNK_FILE)
def test_a_chunk_that_is_a_link_out_of_the_container(kind: str, tmp_path: Path, secret: Path) -> None:
    path = stranger_container(tmp_path / "stranger", kind)
    chunk = path / ("raw" if kind == "n5" else "") / CHUNK_FILE[kind]
    original = chunk.read_bytes()
    chunk.unlink()
    chunk.symlink_to(secret)
    one_chunk = Box.of_shape((1, 1, 1))
    with pytest.raises(UserError, match=rf"{chunk} is a symbolic link to {secret}, outside .* in allow_links"):
        opened(path).read(one_chunk)
    if kind.startswith("zarr2"):
        assert opened(path, (str(secret.parent),)).read(Box.of_shape((1, 1, 3))).tolist() == [[[0, 1, 2]]]
    inside = path / "moved"
    inside.write_bytes(original)
    chunk.unlink()
    chunk.symlink_to(inside)
    assert opened(path).read(one_chunk).tolist() == [[[7]]], "links within the container are its own business"


@pytest.mark.parametrize("kind", ["zarr2 nested", "n5", "zarr3"])
def test_a_folder_of_chunks_that_is_a_link(kind: str, tmp_path: Path, secret: Path) -> None:
    path = stranger_container(tmp_path / "stranger", kind)
    folder = (path / ("raw" if kind == "n5" else "") / CHUNK_FILE[kind]).parent
    folder.rename(tmp_path / "home" / "chunks")
    folder.symlink_to(tmp_path / "home" / "chunks")
    with pytest.raises(UserError, match=r"is a symbolic link to .*/home/chunks"):
        opened(path).read(Box.of_shape((1, 1, 1)))
    assert opened(path, (str(tmp_path / "home"),)).read(Box.of_shape((1, 1, 1))).tolist() == [[[7]]]


def test_an_array_that_is_a_link(tmp_path: Path, secret: Path) -> None:
    path = stranger_container(tmp_path / "stranger", "n5")
    (path / "raw").rename(tmp_path / "home" / "raw")
    (path / "raw").symlink_to(tmp_path / "home" / "raw")
    with pytest.raises(UserError, match=r"raw is a symbolic link to .*/home/raw"):
        opened(path)


def test_what_the_config_names_may_be_a_link(tmp_path: Path, secret: Path) -> None:
    path = stranger_container(tmp_path / "stranger", "zarr2")
    (tmp_path / "mine.zarr").symlink_to(path)
    assert opened(tmp_path / "mine.zarr").read(Box.of_shape((1, 1, 1))).tolist() == [[[7]]]


def test_a_run_reads_no_link_in_place(tmp_path: Path, secret: Path) -> None:
    path = stranger_container(tmp_path / "stranger", "zarr2")
    for chunk in ("0.0.0", "0.1.1"):
        (path / chunk).unlink()
        (path / chunk).symlink_to(secret)
    run = run_of_sources(tmp_path / "run", BLOCK, {"lab": {"kind": "file", "path": str(path)}})
    with pytest.raises(UserError, match="is a symbolic link to"):
        ensure_imported(run)
        run.open_raw("lab").read(Box.of_shape((4, 64, 64)))


def test_a_table_of_bodies_that_is_a_link(tmp_path: Path, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".h5"), "w") as file:
        file["table"] = np.array([[1, 1]])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"], file["stack"] = np.ones(SHAPE, np.uint8), np.ones(SHAPE, np.uint32)
        file["transforms"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "table")
    with pytest.raises(UserError, match=r"transforms is an external link to .*/home/passwords"):
        import_source(
            "lab", FileSource(path=str(tmp_path / "a.h5"), voxel_size=(4, 4, 4)), tmp_path / "volume.zarr", BLOCK
        )
