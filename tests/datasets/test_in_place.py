"""Sources are read where they are, as they are meant: what `import_data.py` says of each, and what it refuses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorstore as ts
import tifffile
import zarr
from stored_arrays import ZARR_2, ngff, scale, translation, write_group, write_n5, write_precomputed, write_zarr
from web_server import serving

from pipeline.commands import import_data
from pipeline.config import load_config
from pipeline.datasets import audit_sources
from pipeline.engine.blocks.storage import open_raw, raw_identity
from pipeline.errors import UserError
from pipeline.evaluation import find_truth
from pipeline.run import Run
from pipeline.training.sampling.regions import ChunkCache, training_regions
from pipeline.volumes import Box

SHAPE = (12, 40, 44)
RAW = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
LABELS = np.random.default_rng(1).integers(1, 9, SHAPE).astype(np.uint64)
NM = {"resolution": [40, 6, 4]}

Step = Callable[..., tuple[int, str]]


@pytest.fixture
def step(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Step:
    """`import_data.py` with a source: its exit status and what it printed."""

    def run(source: Mapping[str, Any], *options: str) -> tuple[int, str]:
        write_config(tmp_path, source)
        monkeypatch.setattr(sys, "argv", ["import_data.py", str(tmp_path / "config.json"), *options])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            import_data.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return run


def write_config(folder: Path, source: Mapping[str, Any], **sections: Any) -> Path:
    document = {
        "run_directory": "run",
        "volumes": {
            "sources": {"s": {"kind": "file", **source}},
            "train": [{"source": "s"}],
            "segment": {"source": "s"},
            "import_block": [8, 32, 32],
        },
        "student": {"network": {"name": "section_unet", "widths": [4, 6]}, "distillation": None},
        **sections,
    }
    (folder / "config.json").write_text(json.dumps(document))
    return folder / "config.json"


def run_of(folder: Path) -> Run:
    return Run(load_config(folder / "config.json", {"run_directory": str(folder / "run")}))


def voxels(folder: Path, dataset: str = "raw") -> np.ndarray:
    run = run_of(folder)
    volume = run.open_raw("s") if dataset == "raw" else run.open_labels("s")
    return volume.read(volume.box)


def copied(folder: Path) -> list[Path]:
    """Arrays that were written into the run."""
    return [*(folder / "run").rglob(".zarray"), *(folder / "run").rglob("zarr.json")]


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


@pytest.mark.parametrize("told", [{}, {"voxel_size": [40, 6, 4]}])
def test_labels_that_lie_beside_raw_are_refused(tmp_path: Path, step: Step, told: dict[str, Any]) -> None:
    for name, data, place in (("raw", RAW, (4.0, 0.6, 0.4)), ("labels", LABELS, (4.4, 0.66, 0.44))):
        write_zarr(tmp_path / f"{name}.zarr" / "0", data, dimension_separator="/")
        write_group(tmp_path / f"{name}.zarr", ngff({"0": [scale(0.04, 0.006, 0.004), translation(*place)]}))
    status, said = step({"path": "raw.zarr", "labels_path": "labels.zarr", "labels": "0", **told})
    assert status == 2
    assert "volumes.sources.s.offset" in said and "400 x 60 x 40 nm beside" in said
    assert not (tmp_path / "run").exists()
    status, said = step({"path": "raw.zarr"})
    assert status == 0 and "voxels of 40 x 6 x 4 nm at offset 4000 x 600 x 400 nm" in said


def test_labels_displaced_by_half_a_voxel_are_refused(tmp_path: Path, step: Step) -> None:
    write_zarr(tmp_path / "in.zarr" / "raw", RAW, NM)
    write_zarr(tmp_path / "in.zarr" / "labels", LABELS, {**NM, "offset": [0, 3, 0]})
    status, said = step({"path": "in.zarr"})
    assert status == 2 and "0 x 0.5 x 0 of raw's voxels" in said


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
def test_labels_may_cover_a_part_of_raw(tmp_path: Path, step: Step, kind: str) -> None:
    """The rest is not annotated: neither an object nor background."""
    part = LABELS[3:9, 10:30, 10:30].copy()
    part[0, 0, 0] = 0
    attributes = {**NM, "offset": [120, 60, 40]}
    if kind == "zarr":
        write_zarr(tmp_path / "in.x" / "raw", RAW, NM)
        write_zarr(tmp_path / "in.x" / "labels", part, attributes)
    else:
        with h5py.File(tmp_path / "in.x", "w") as file:
            file.create_dataset("raw", data=RAW).attrs.update(NM)
            file.create_dataset("labels", data=part).attrs.update(attributes)
    status, said = step({"path": "in.x"})
    assert status == 0 and "labels uint64 on voxels 3 x 10 x 10 to 9 x 30 x 30" in said
    (region,) = training_regions(run_of(tmp_path))
    expected, known = np.zeros(SHAPE, np.uint64), np.zeros(SHAPE, bool)
    expected[3:9, 10:30, 10:30], known[3:9, 10:30, 10:30] = part, True
    for box in (Box.of_shape(SHAPE), Box.of_shape(SHAPE).grow((-4, -5, -12), (-5, -12, -7))):
        assert np.array_equal(region.read_labels(box, ChunkCache()), expected[box.slices])
        assert np.array_equal(region.read_annotated(box, ChunkCache()), known[box.slices])


def test_labels_may_be_coarser_by_whole_factors(tmp_path: Path, step: Step) -> None:
    write_zarr(tmp_path / "in.zarr" / "raw", RAW, NM)
    coarse = LABELS[:, ::2, ::4]
    write_zarr(tmp_path / "in.zarr" / "labels", coarse, {"resolution": [40, 12, 16]})
    status, said = step({"path": "in.zarr"})
    assert status == 0 and "labels uint64 coarser by 1 x 2 x 4" in said
    expected = coarse.repeat(2, axis=1).repeat(4, axis=2)
    run, box = run_of(tmp_path), Box.of_shape(SHAPE).grow((-1, -3, -5), (0, -1, -2))
    assert np.array_equal(run.open_labels("s").read(box), expected[box.slices])
    write_zarr(tmp_path / "in.zarr" / "labels", coarse, {"resolution": [40, 9, 16]})
    status, said = step({"path": "in.zarr"}, "--set", "run_directory=other")
    assert status == 2 and "coarser than raw by whole factors only" in said


def test_labels_of_the_level_that_fits_raw(tmp_path: Path, step: Step) -> None:
    """Raw is read at level 1; the labels' finest level would be finer than raw."""
    place = tmp_path / "in.zarr"
    levels = {"0": [scale(0.04, 0.006, 0.004)], "1": [scale(0.04, 0.012, 0.008)]}
    for group, data in ((place, RAW), (place / "labels" / "cells", LABELS)):
        write_zarr(group / "0", data)
        write_zarr(group / "1", data[:, ::2, ::2])
        write_group(group, ngff(levels))
    write_group(place / "labels", {"labels": ["cells"]})
    status, said = step({"path": "in.zarr", "level": 1})
    assert status == 0 and "12 x 20 x 22 voxels of 40 x 12 x 8 nm" in said
    assert np.array_equal(voxels(tmp_path, "labels"), LABELS[:, ::2, ::2])


IGNORED = {"i8": -1, "u8": 2**64 - 1, "i4": -7, "u4": 2**32 - 1}


@pytest.mark.parametrize("kind", IGNORED)
@pytest.mark.parametrize("container", ["hdf5", "zarr"])
def test_an_ignore_label_of_any_size_is_not_annotated(tmp_path: Path, step: Step, kind: str, container: str) -> None:
    labels = LABELS.astype(kind)
    labels[:, :5] = IGNORED[kind]
    if container == "zarr":
        write_zarr(tmp_path / "in" / "raw", RAW, NM)
        write_zarr(tmp_path / "in" / "labels", labels)
    else:
        with h5py.File(tmp_path / "in", "w") as file:
            file.create_dataset("raw", data=RAW).attrs.update(NM)
            file["labels"] = labels
    status, said = step({"path": "in"}, "--set", f"targets.unlabelled_id={IGNORED[kind]}")
    assert status == 0, said
    run = Run(
        load_config(
            tmp_path / "config.json",
            {"run_directory": str(tmp_path / "run"), "targets": {"unlabelled_id": IGNORED[kind]}},
        )
    )
    (region,) = training_regions(run)
    read = region.read_labels(Box.of_shape(SHAPE), ChunkCache())
    assert np.array_equal(read[:, 5:], LABELS[:, 5:]) and not read[:, :5].any()
    known = region.read_annotated(Box.of_shape(SHAPE), ChunkCache())
    assert known[:, 5:].all() and not known[:, :5].any()


def test_a_negative_label_that_nobody_names_is_refused(tmp_path: Path, step: Step) -> None:
    labels = LABELS.astype("i8")
    labels[2, 3, 4] = -1
    write_zarr(tmp_path / "in" / "raw", RAW, NM)
    write_zarr(tmp_path / "in" / "labels", labels)
    assert step({"path": "in"})[0] == 0, "nobody has read that voxel yet"
    (region,) = training_regions(run_of(tmp_path))
    with pytest.raises(UserError, match=r"negative label -1; .* targets\.unlabelled_id"):
        region.read_labels(Box.of_shape(SHAPE), ChunkCache())


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
