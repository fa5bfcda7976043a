"""Sources are read where they are, as they are meant: what `import_data.py` says of each, and what it refuses."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorstore as ts
import tifffile
import zarr
from source_in_place import LABELS, NM, RAW, SHAPE, Step, copied, run_of, voxels, write_config
from stored_arrays import ZARR_2, ngff, scale, translation, write_group, write_n5, write_precomputed, write_zarr
from web_server import serving

from pipeline.config import dump_config, parse_config
from pipeline.datasets import audit_sources, require_unchanged
from pipeline.engine.blocks.storage import open_raw, raw_identity
from pipeline.errors import UserError
from pipeline.evaluation import find_truth
from pipeline.networks import build_network, save_checkpoint
from pipeline.run import Run
from pipeline.stages.by_script import STAGES_OF, import_for, predict
from pipeline.training.sampling.regions import ChunkCache, training_regions
from pipeline.volumes import Box


@pytest.mark.parametrize("copy", [False, True])
def test_chunks_without_fill_value_are_zeros(tmp_path: Path, step: Step, copy: bool) -> None:
    write_group(tmp_path / "in.zarr", {})
    for name, kind in (("raw", "u1"), ("labels", "u8")):
        place: dict[str, Any] = {"shape": SHAPE, "chunks": (6, 20, 22), **ZARR_2}
        array = zarr.open_array(str(tmp_path / "in.zarr" / name), mode="w", dtype=kind, fill_value=None, **place)
        array.attrs.update(NM)
        array[:6, :20, :22] = 7
    status, said = step({"path": "in.zarr", "copy": copy})
    assert status == 0, said
    expected = np.zeros(SHAPE)
    expected[:6, :20, :22] = 7
    for name in ("raw", "labels"):
        assert np.array_equal(voxels(tmp_path, name), expected)
    assert bool(copied(tmp_path)) == copy


def test_n5_says_its_offset_by_named_axes(tmp_path: Path, step: Step) -> None:
    transform = {"axes": ["z", "y", "x"], "ordering": "C", "scale": [40, 6, 4], "translate": [4000, 600, 400]}
    write_n5(tmp_path / "in.n5" / "em" / "s0", RAW, {"transform": {**transform, "units": ["nm"] * 3}})
    status, said = step({"path": "in.n5", "raw": "em/s0"})
    assert status == 0 and "voxels of 40 x 6 x 4 nm at offset 4000 x 600 x 400 nm (raw uint8)" in said
    assert said.rstrip().endswith("intensity 0 to 255 (the type uint8), read in place")
    assert np.array_equal(voxels(tmp_path), RAW) and not copied(tmp_path)


def test_n5_folders_without_attributes_are_groups(tmp_path: Path, step: Step) -> None:
    write_n5(tmp_path / "in.n5" / "volumes" / "raw", RAW, {"resolution": [4, 6, 40]})
    assert not (tmp_path / "in.n5" / "volumes" / "attributes.json").exists()
    status, said = step({"path": "in.n5"})
    assert status == 0 and "voxels of 40 x 6 x 4 nm" in said
    assert np.array_equal(voxels(tmp_path), RAW)


def test_a_neighbour_that_cannot_be_read_does_not_matter(tmp_path: Path, step: Step) -> None:
    write_zarr(tmp_path / "in.zarr" / "raw", RAW, NM)
    write_zarr(tmp_path / "in.zarr" / "preview", RAW[:2])
    broken = tmp_path / "in.zarr" / "preview" / ".zarray"
    broken.write_text(json.dumps({**json.loads(broken.read_text()), "compressor": {"id": "unheard_of"}}))
    assert step({"path": "in.zarr"})[0] == 0
    assert step({"path": "in.zarr", "copy": True}, "--set", "run_directory=copy")[0] == 0
    status, said = step({"path": "in.zarr", "raw": "preview"}, "--set", "run_directory=other")
    assert status == 2 and "codec cannot be read: unheard_of" in said and "Traceback" not in said


STATEMENTS = {
    "unknown units": {"resolution": [400.0, 40.0, 40.0], "units": "angstroms of old"},
    "two values": {"resolution": [40.0, 4.0, 4.0], "voxel_size": [4.0, 4.0, 40.0]},
    "four numbers": {"resolution": [1.0, 40.0, 4.0, 4.0]},
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_the_voxel_size_of_the_config_counts(tmp_path: Path, step: Step, case: str) -> None:
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("raw", data=RAW).attrs.update(STATEMENTS[case])
    status, said = step({"path": "in.h5"})
    assert status == 2 and "volumes.sources.s.voxel_size" in said and "config" in said
    status, said = step({"path": "in.h5", "voxel_size": [40, 4.5, 3.58]})
    assert status == 0 and "voxels of 40 x 4.5 x 3.58 nm" in said
    assert run_of(tmp_path).open_raw("s").voxel_size == (40, 4.5, 3.58)


def test_imagej_names_the_unit_of_z_apart(tmp_path: Path, step: Step) -> None:
    metadata = {"spacing": 40, "unit": "um", "zunit": "nm"}
    tifffile.imwrite(tmp_path / "in.tif", RAW, imagej=True, resolution=(1 / 0.004, 1 / 0.006), metadata=metadata)
    status, said = step({"path": "in.tif"})
    assert status == 0 and "voxels of 40 x 6 x 4 nm" in said and "copied into" in said


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_filter_that_is_missing_is_named(tmp_path: Path, step: Step, options: tuple[str, ...]) -> None:
    number = 32008
    if h5py.h5z.filter_avail(number):
        pytest.skip("the filter is installed here")
    with h5py.File(tmp_path / "in.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((8, 32, 32))
        properties.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (0, 0, 0, 2))
        space = h5py.h5s.create_simple(SHAPE)
        created = h5py.Dataset(h5py.h5d.create(file.id, b"raw", h5py.h5t.NATIVE_UINT8, space, properties))
        created.attrs.update(NM)
        created.id.write_direct_chunk((0, 0, 0), bytes(100))
    status, said = step({"path": "in.h5"}, *options)
    assert status == 2 and said.count("\n") == 1
    assert "32008 (bitshuffle)" in said and "hdf5plugin" in said and "HDF5_PLUGIN_PATH" in said


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("kind", ["zarr", "n5"])
def test_labels_corrected_in_place_are_noticed(tmp_path: Path, step: Step, copy: bool, kind: str) -> None:
    place = tmp_path / f"in.{kind}"
    for name, data in (("raw", RAW), ("labels", LABELS)):
        (write_zarr if kind == "zarr" else write_n5)(place / name, data, {"resolution": [40, 8, 40]})
    source = {"path": place.name, "copy": copy, "labels": "labels"}
    assert step(source)[0] == 0
    assert step(source)[0] == 0, "nothing has changed"
    driver = {"zarr": "zarr", "n5": "n5"}[kind]
    kvstore = {"driver": "file", "path": f"{place / 'labels'}/"}
    array = ts.open({"driver": driver, "kvstore": kvstore}, open=True).result()
    array[1:3, 1:3, 1:3] = 77
    status, said = step(source)
    assert status == 2 and said.count("\n") == 1
    assert "volumes.sources.s: the source has changed since it was imported" in said and "labels" in said
    assert ("06_evaluate.py" in said) == (not copy)


def test_a_copy_elsewhere_is_the_same_source(tmp_path: Path, step: Step) -> None:
    """Neither the spelling of a path nor the times of files matter if the voxels are the same."""
    for folder in ("a", "b"):
        write_zarr(tmp_path / folder / "in.zarr" / "raw", RAW, NM)
        for file in (tmp_path / folder).rglob("*"):
            os.utime(file, (10**9, 10**9 + (folder == "b")))
    assert step({"path": "a/in.zarr"})[0] == 0
    before = raw_identity(run_of(tmp_path))
    assert step({"path": str(tmp_path / "b" / "in.zarr")})[0] == 0
    assert raw_identity(run_of(tmp_path)) == before


@pytest.mark.parametrize("copy", [False, True])
def test_steps_that_import_nothing_refuse_another_source_too(tmp_path: Path, step: Step, copy: bool) -> None:
    """03 to 06 go by what was imported, and would say that all is up to date, and note the config as theirs."""
    for name, raw in (("in", RAW), ("other", RAW[::-1])):
        write_zarr(tmp_path / f"{name}.zarr" / "raw", raw, NM)
    source = {"path": "in.zarr", "copy": copy}
    assert step(source)[0] == 0
    for other in ({"path": "other.zarr"}, {"voxel_size": [80, 6, 4]}):
        write_config(tmp_path, {**source, **other})
        uses: list[Callable[[Run], object]] = [partial(import_for, step=name) for name in STAGES_OF]
        for use in [*uses, partial(require_unchanged, name="s")]:  # the last is what an evaluation begins with
            with pytest.raises(UserError, match="changed since it was imported"):
                use(run_of(tmp_path))
    shutil.rmtree(tmp_path / "in.zarr")
    write_config(tmp_path, source)
    if copy:
        import_for(run_of(tmp_path), "fragments")  # which needs no source any more


def test_the_key_of_whole_nanometres_has_whole_numbers(tmp_path: Path, step: Step) -> None:
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("raw", data=RAW).attrs["resolution"] = [40.0, 8.0, 3.58]
    assert step({"path": "in.h5"})[0] == 0
    assert json.dumps(raw_identity(run_of(tmp_path))["voxel_size"]) == "[40, 8, 3.58]"


def test_precomputed_beside_its_labels(tmp_path: Path, step: Step) -> None:
    write_precomputed(tmp_path / "em" / "raw", RAW, resolution=(3.58, 6, 40), voxel_offset=(7, 0, 2))
    write_precomputed(tmp_path / "em" / "labels", LABELS, resolution=(3.58, 6, 40), voxel_offset=(7, 0, 2))
    status, said = step({"path": "em"})
    assert status == 0 and "voxels of 40 x 6 x 3.58 nm at offset 80 x 0 x 25.06 nm (raw uint8, labels uint64)" in said
    assert np.array_equal(voxels(tmp_path), RAW) and np.array_equal(voxels(tmp_path, "labels"), LABELS)
    assert not copied(tmp_path)


def test_an_image_of_five_axes_with_a_pyramid(tmp_path: Path, step: Step) -> None:
    place = tmp_path / "in.zarr"
    levels = {}
    for level in range(3):
        factor = 2**level
        write_zarr(place / str(level), RAW[None, None, :, ::factor, ::factor])
        levels[str(level)] = [scale(1, 1, 0.03, 0.00358 * factor, 0.00358 * factor), translation(0, 0, 3, 0.1, 0)]
    write_group(place, ngff(levels, axes="tczyx"))
    status, said = step({"path": "in.zarr"})
    assert status == 0 and "12 x 40 x 44 voxels of 30 x 3.58 x 3.58 nm at offset 3000 x 100 x 0 nm" in said
    assert np.array_equal(voxels(tmp_path), RAW)
    status, said = step({"path": "in.zarr", "level": 2}, "--set", "run_directory=coarse")
    assert status == 0 and "12 x 10 x 11 voxels of 30 x 14.32 x 14.32 nm" in said


def test_twelve_bits_are_read_with_their_own_range(tmp_path: Path, step: Step) -> None:
    deep = RAW.astype(np.uint16) * 16
    write_zarr(tmp_path / "in.zarr" / "raw", deep, NM)
    write_zarr(tmp_path / "in.zarr" / "labels", LABELS)
    status, said = step({"path": "in.zarr"})
    assert status == 0 and "(percentiles 0.1 and 99.9 of a sample)" in said
    run = run_of(tmp_path)
    known = run.intensity("s")
    assert 0 <= known.low < 100 and 3900 < known.high <= 255 * 16
    (region,) = training_regions(run)
    seen = region.read_raw(Box.of_shape(SHAPE), ChunkCache())
    assert seen.min() == -1 and seen.max() == 1 and abs(seen.mean()) < 0.05
    assert raw_identity(run)["intensity"] == [known.low, known.high]
    assert step({"path": "in.zarr"})[0] == 0
    assert run_of(tmp_path).intensity("s") == known, "measured once"
    status, said = step({"path": "in.zarr", "intensity": [0, 4095]})
    assert status == 0 and "intensity 0 to 4095 (the config)" in said


def test_eight_bits_are_read_as_ever(tmp_path: Path, step: Step) -> None:
    write_zarr(tmp_path / "in.zarr" / "raw", RAW, NM)
    write_zarr(tmp_path / "in.zarr" / "labels", LABELS)
    assert step({"path": "in.zarr"})[0] == 0
    (region,) = training_regions(run_of(tmp_path))
    seen = region.read_raw(Box.of_shape(SHAPE), ChunkCache())
    assert np.array_equal(seen, RAW.astype(np.float32) / np.float32(127.5) - np.float32(1))
    assert "intensity" not in raw_identity(run_of(tmp_path))


def test_other_intensities_than_those_of_training_are_told(tmp_path: Path, step: Step) -> None:
    write_zarr(tmp_path / "a.zarr" / "raw", RAW.astype(np.uint16) * 16, NM)
    write_zarr(tmp_path / "b.zarr" / "raw", RAW.astype(np.uint16) * 200, NM)
    sources = {"s": {"kind": "file", "path": "a.zarr"}, "t": {"kind": "file", "path": "b.zarr"}}
    status, said = step(
        {"path": "a.zarr"},
        *("--set", f"volumes.sources={json.dumps(sources)}"),
        *("--set", 'volumes.segment.source="t"'),
    )
    assert status == 0 and "t, which is segmented, has other intensities than s" in said


@pytest.mark.parametrize("what", ["group", "array"])
def test_a_url_is_read_where_it_is(tmp_path: Path, step: Step, what: str) -> None:
    write_zarr(tmp_path / "served" / "in.zarr" / "raw", RAW, NM)
    write_zarr(tmp_path / "served" / "in.zarr" / "labels", LABELS)
    write_group(tmp_path / "served" / "in.zarr", {})
    with serving(tmp_path / "served") as server:
        path = f"{server.url}/in.zarr" + ("/raw" if what == "array" else "")
        status, said = step({"path": path})
        assert status == 0 and "read in place" in said and ("labels uint64" in said) == (what == "group")
        assert np.array_equal(voxels(tmp_path), RAW)
        if what == "group":
            assert np.array_equal(voxels(tmp_path, "labels"), LABELS)
        assert not copied(tmp_path)
        server.failures = 1000
        status, said = step({"path": path})
        assert status == 2 and "run again when the server answers" in said and "Traceback" not in said


@pytest.mark.parametrize("dataset", ["raw", "labels", "mask"])
def test_chunks_that_are_lost_later_are_no_zeros_for_training_evaluation_and_blocks(
    tmp_path: Path, step: Step, dataset: str
) -> None:
    """A chunk of labels that was never written is background, before and after."""
    for name, data in (("raw", RAW | 1), ("labels", LABELS), ("mask", np.ones(SHAPE, np.uint8))):
        write_zarr(tmp_path / "in.zarr" / name, data, NM)
    never = tmp_path / "in.zarr" / "labels" / "0.0.0"
    never.unlink()
    source = {"path": "in.zarr", "mask": "mask"}
    assert step(source)[0] == 0
    run, whole = run_of(tmp_path), Box.of_shape(SHAPE)
    expected = LABELS.copy()
    expected[:8, :16, :16] = 0
    assert np.array_equal(run.open_labels("s").read(whole), expected)
    assert audit_sources(run) == []
    (tmp_path / "in.zarr" / dataset / "1.1.1").unlink()
    assert [line.partition(":")[0] for line in audit_sources(run)] == [
        f"{dataset} of the source s, {tmp_path}/in.zarr/{dataset}"
    ]
    assert "1 of 18 chunks are lost (1.1.1)" in audit_sources(run)[0] or dataset == "labels"
    lost = rf"in\.zarr/{dataset}: chunk 1\.1\.1 is lost, which was there when the run began to use it"
    (region,) = training_regions(run)
    readers: dict[str, list[Callable[[], object]]] = {
        "raw": [lambda: open_raw(run).read(whole), lambda: region.read_raw(whole, ChunkCache())],
        "labels": [lambda: run.open_labels("s").read(whole), lambda: region.read_labels(whole, ChunkCache())],
        "mask": [lambda: find_truth(run).read(whole), lambda: region.read_annotated(whole, ChunkCache())],
    }
    for read in readers[dataset]:
        with pytest.raises(UserError, match=lost):
            read()
    assert (never.parent / "0.0.1").exists() and not never.exists()


def test_blocks_that_another_mask_takes_in_are_predicted(tmp_path: Path, step: Step) -> None:
    def run_in_blocks() -> Run:
        document = dump_config(run_of(tmp_path).config)
        document["predict"] |= {"block_size": [4, 16, 16], "tile_size": [4, 16, 16]}
        document["cluster"] |= {"executor": "serial"}
        return Run(parse_config(document))

    def predicted() -> np.ndarray:
        affinities = run_of(tmp_path).open_computed("affinities")
        return np.asarray(affinities.read(affinities.box).any(axis=0))

    half = np.zeros(SHAPE, np.uint8)
    half[:, :16] = 1
    for name, data in (("raw", RAW | 1), ("mask", half)):
        write_zarr(tmp_path / "in.zarr" / name, data, NM)
    source = {"path": "in.zarr", "mask": "mask"}
    assert step(source)[0] == 0
    run = run_in_blocks()
    network = build_network(run.config.student.network)
    save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", network, 1, {})
    assert predict(run) and predicted()[:, :16].mean() > 0.9 and not predicted()[:, 16:].any()
    write_zarr(tmp_path / "in.zarr" / "mask", np.ones(SHAPE, np.uint8), NM)
    status, said = step(source)
    assert status == 2 and "predict again (02 --overwrite)" in said
    run.source("s").record.unlink()
    assert step(source)[0] == 0
    with pytest.raises(UserError, match=r"predict \(changed: mask"):
        predict(run_in_blocks())
    assert predict(run_in_blocks(), overwrite=True) and predicted().mean() > 0.9


def test_chunks_that_cloud_volume_compressed_on_a_disk_are_refused_instead_of_read_as_zeros(
    tmp_path: Path, step: Step
) -> None:
    for name, data in (("em", RAW), ("bodies", LABELS)):
        write_precomputed(tmp_path / name, data)
    (folder,) = (path for path in (tmp_path / "bodies").iterdir() if path.is_dir())
    for path in [*folder.iterdir()]:  # as `CloudVolume("file://…")[:] = data` leaves them
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    status, said = step({"path": "em", "labels_path": "bodies"})
    assert status == 2 and "labels_path" in said and f"gunzip -r {folder}" in said
    subprocess.run(["gunzip", "-r", str(folder)], check=True)
    status, said = step({"path": "em", "labels_path": "bodies"})
    assert status == 0 and np.array_equal(voxels(tmp_path, "labels"), LABELS)


def test_labels_may_be_named_when_raw_is_in_use_already(tmp_path: Path, step: Step) -> None:
    for name, data in (("raw", RAW), ("gt/ids", LABELS), ("gt/others", LABELS + 1)):
        write_zarr(tmp_path / "in.zarr" / name, data, NM)
    write_group(tmp_path / "in.zarr", {})
    status, said = step({"path": "in.zarr"})
    assert status == 0 and "labels" not in said
    status, said = step({"path": "in.zarr", "labels": "gt/ids"})
    assert status == 0 and "labels uint64" in said, said
    assert np.array_equal(voxels(tmp_path, "labels"), LABELS)
    status, said = step({"path": "in.zarr", "labels": "gt/others"})
    assert status == 2 and "its voxels, in the labels" in said and "go on with the new labels by" in said
    status, said = step({"path": "in.zarr", "labels": "gt/ids", "channel": 0, "axes": "zyx"})
    assert status == 2 and "its config section" in said
