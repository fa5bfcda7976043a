"""An import happens once, is never taken for complete when it is half, and survives a moved run."""

from __future__ import annotations

import functools
import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from imported_sources import import_source, run_of_sources
from stored_arrays import raw_voxels, write_zarr

from pipeline import agglomerate, extract_fragments, segment
from pipeline.config import FileSource, PhantomSource, config_hash, dump_config, load_config, parse_config
from pipeline.datasets import describe_import, is_imported, require_unchanged
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.stages.by_script import import_for
from pipeline.stages.convert import all_conversions
from pipeline.stages.export.targets import ExportOptions, export_run
from pipeline.stages.importing import ensure_imported
from pipeline.training.sampling.regions import ChunkCache, training_regions
from pipeline.volumes import Box, RunVolume, container_attributes, note_in_container, open_volume

BLOCK = (2, 16, 16)


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    return write(tmp_path / "a.h5", np.arange(6 * 20 * 20, dtype=np.uint16).reshape(6, 20, 20))


def write(path: Path, raw: np.ndarray) -> FileSource:
    with h5py.File(path, "w") as file:
        file.attrs["voxel_size"] = [40, 4, 4]
        file["raw"] = raw
        file["labels"] = raw.astype(np.int64)
    return FileSource(path=str(path))


def modification_times(container: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in container.rglob("*") if file.is_file()}


def test_a_complete_import_is_left_alone(tmp_path: Path, source: FileSource) -> None:
    container = tmp_path / "volume.zarr"
    assert import_source("lab", source, container, BLOCK)
    before = modification_times(container)
    assert not import_source("lab", source, container, BLOCK)
    assert modification_times(container) == before


def test_what_others_noted_in_the_container_is_kept(tmp_path: Path, source: FileSource) -> None:
    container = tmp_path / "volume.zarr"
    import_source("lab", source, container, BLOCK)
    note_in_container(container, **{"import": None, "other": 1})
    assert not is_imported("lab", source, container)
    import_source("lab", source, container, BLOCK)
    assert is_imported("lab", source, container)
    assert container_attributes(container)["other"] == 1


def test_changed_data_are_refused_and_nothing_is_lost(tmp_path: Path, source: FileSource) -> None:
    container = tmp_path / "volume.zarr"
    import_source("lab", source, container, BLOCK)
    write(Path(source.path), np.zeros((6, 20, 20), np.uint8))
    with pytest.raises(UserError, match=r"volumes\.sources\.lab: the source has changed .* or delete"):
        import_source("lab", source, container, BLOCK)
    assert open_volume(container, "raw").array[:].any()


@pytest.mark.parametrize("what", ["labels", "mask"])
def test_a_file_that_is_named_after_the_import_is_not_left_out_without_a_word(
    tmp_path: Path, source: FileSource, what: str
) -> None:
    container = tmp_path / "volume.zarr"
    import_source("lab", source, container, BLOCK)
    write(tmp_path / "more.h5", np.ones((6, 20, 20), np.uint8))
    named = source.model_copy(update={f"{what}_path": str(tmp_path / "more.h5")})
    with pytest.raises(UserError, match=rf"has changed .*nothing was imported of its {what}_path"):
        import_source("lab", named, container, BLOCK)
    assert not import_source("lab", source, container, BLOCK), "the import stays"


def test_a_changed_config_section_is_refused(tmp_path: Path) -> None:
    container = tmp_path / "volume.zarr"
    import_source("lab", PhantomSource(shape=(4, 20, 20), seed=1), container, BLOCK)
    with pytest.raises(UserError, match="has changed"):
        import_source("lab", PhantomSource(shape=(4, 20, 20), seed=2), container, BLOCK)
    assert not import_source("lab", PhantomSource(shape=(4, 20, 20), seed=1, block_shape=(1, 9, 9)), container, BLOCK)


@pytest.mark.parametrize("copy", [True, False])
def test_steps_that_do_not_import_notice_a_changed_section(tmp_path: Path, copy: bool) -> None:
    """They would go on with the voxel size that raw was imported with, whatever the config says now."""
    write_zarr(tmp_path / "in.zarr" / "raw", raw_voxels(), {"resolution": [40, 6, 4]})

    def with_source(**keys: Any) -> Run:
        source = {"kind": "file", "path": str(tmp_path / "in.zarr"), "copy": copy, **keys}
        volumes = {"sources": {"s": source}, "segment": {"source": "s"}}
        student = {"distillation": None, "network": {"name": "section_unet", "sections": 3}}
        return Run(load_config({"run_directory": str(tmp_path / "run"), "volumes": volumes, "student": student}))

    ensure_imported(with_source())
    import_for(with_source(samples=3), "segment")
    changed = with_source(voxel_size=[40, 12, 8])
    export = ExportOptions(target="ngff", to=str(tmp_path / "out"))
    steps: list[Callable[[], object]] = [
        functools.partial(extract_fragments, changed),
        functools.partial(agglomerate, changed),
        functools.partial(segment, changed),
        functools.partial(export_run, changed, export),
    ]
    for step in steps:
        with pytest.raises(UserError, match=r"^volumes\.sources\.s: the source has changed since it was imported"):
            step()
    with pytest.raises(UserError, match="changed since it was imported"):
        require_unchanged(changed, "s")  # what scores ask first


def test_labels_that_are_named_after_the_import_are_told_by_their_key(tmp_path: Path, source: FileSource) -> None:
    container = tmp_path / "volume.zarr"
    import_source("lab", source, container, BLOCK)
    with pytest.raises(UserError, match="nothing was imported as its labels 'truth'"):
        import_source("lab", source.model_copy(update={"labels": "truth"}), container, BLOCK)


def test_an_import_of_an_earlier_version_stays_valid(
    tmp_path: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It noted a hash of the section with the path as it was written then, and no version."""
    container = tmp_path / "volume.zarr"
    import_source("lab", source, container, BLOCK)
    names = ("kind", "path", "raw", "labels_path", "labels", "mask", "voxel_size", "offset", "axes")
    section = dict.fromkeys(names) | {"kind": "file", "path": "a.h5"}
    noted = {"section": config_hash(section), "data": container_attributes(container)["import"]["data"]}
    note_in_container(container, **{"import": noted})
    monkeypatch.chdir("/")
    assert is_imported("lab", source, container)
    with pytest.raises(UserError, match="has changed"):
        is_imported("lab", source.model_copy(update={"raw": "labels"}), container)


def test_a_moved_run_continues_without_its_source(tmp_path: Path, source: FileSource) -> None:
    import_source("lab", source, tmp_path / "run" / "volume.zarr", BLOCK)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    Path(source.path).unlink()
    assert not import_source("lab", source, tmp_path / "moved" / "volume.zarr", BLOCK)


def test_labels_that_are_not_imported_yet_are_not_said_to_be_missing(tmp_path: Path, source: FileSource) -> None:
    run = run_of(tmp_path, lab=dump_config(source))
    with pytest.raises(UserError, match=r"volumes\.sources\.lab: the source is not imported yet; run .*import_data"):
        run.open_labels("lab")
    ensure_imported(run)
    assert run.open_labels("lab").shape == run.open_raw("lab").shape


def test_labels_of_an_earlier_import_do_not_survive(tmp_path: Path) -> None:
    container = tmp_path / "volume.zarr"
    import_source("lab", PhantomSource(shape=(4, 20, 20)), container, BLOCK)
    note_in_container(container, **{"import": None})  # as if it had been interrupted
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = np.zeros((4, 20, 20), np.uint8)
    import_source("lab", FileSource(path=str(tmp_path / "a.h5"), voxel_size=(40, 4, 4)), container, BLOCK)
    assert not (container / "labels").exists()


def test_a_full_disk_is_one_line_and_the_import_can_be_repeated(
    tmp_path: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RunVolume, *arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    container = tmp_path / "volume.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(RunVolume, "write", full)
        with pytest.raises(UserError, match=r"No space left on device; make room and run the same command again"):
            import_source("lab", source, container, BLOCK)
    assert import_source("lab", source, container, BLOCK)


def test_a_run_directory_that_cannot_be_made_is_one_line(tmp_path: Path, source: FileSource) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        import_source("lab", source, tmp_path / "file" / "run" / "volume.zarr", BLOCK)


def test_memory_depends_on_the_block_not_on_the_volume(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.attrs["voxel_size"] = [40, 4, 4]
        file.create_dataset("raw", (256, 512, 512), np.uint8, chunks=(16, 64, 64), fillvalue=3)  # 64 MiB
    tracemalloc.start()
    import_source("lab", FileSource(path=str(tmp_path / "large.h5")), tmp_path / "volume.zarr", (16, 128, 128))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20


def run_of(tmp_path: Path, **sources: dict[str, Any]) -> Run:
    return run_of_sources(tmp_path / "run", BLOCK, sources)


PHANTOM = {"kind": "phantom", "shape": [4, 20, 20]}


def test_sources_go_into_their_own_containers(tmp_path: Path) -> None:
    run = run_of(tmp_path, a=PHANTOM, b={**PHANTOM, "seed": 1})
    ensure_imported(run, ["b"])
    assert not run.container("a").file.exists()
    ensure_imported(run)
    assert run.open_raw("a").name != run.open_raw("b").name
    first, second = run.open_raw("a"), run.open_raw("b")
    assert (first.read(first.box) != second.read(second.box)).any()
    with pytest.raises(UserError, match="there is no source 'c'; there are a, b"):
        ensure_imported(run, ["c"])


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path, a=PHANTOM, b={"kind": "public", "name": "cremi_a", "cache": str(tmp_path / "cache")})
    lines = describe_import(run)
    assert lines[0] == (
        "a: would import 4 x 20 x 20 voxels of 40 x 8 x 8 nm at offset 0 x 0 x 0 nm (raw uint8, labels uint64),"
        " intensity 0 to 255 (the type uint8), copied into the run"
    )
    assert "b: would be downloaded and imported" in lines
    assert not run.directory.exists()
    ensure_imported(run, ["a"])
    assert describe_import(run)[0].endswith(f"copied into {run.volume}: already imported")


def test_only_the_label_that_is_not_annotated_may_be_negative(tmp_path: Path, source: FileSource) -> None:
    with h5py.File(source.path, "r+") as file:
        file["labels"][2:4] = -1
    document = {
        "run_directory": str(tmp_path / "run"),
        "volumes": {
            "sources": {"lab": dump_config(source)},
            "segment": {"source": "lab"},
            "train": [{"source": "lab"}],
        },
        "student": {"network": {"name": "section_unet"}, "distillation": None},
    }
    for stated in (None, -2, 7):
        with pytest.raises(UserError, match=r"labels must not be negative, but .* has -1 .*targets\.unlabelled_id"):
            ensure_imported(Run(parse_config({**document, "targets": {"unlabelled_id": stated}})))
    run = Run(parse_config({**document, "targets": {"unlabelled_id": -1}}))
    ensure_imported(run)
    (region,) = training_regions(run)
    annotated = region.read_annotated(region.box, ChunkCache())
    assert not annotated[2:4].any() and annotated[:2].all() and annotated[4:].all()
    labels = region.read_labels(region.box, ChunkCache())
    assert not labels[2:4].any() and labels.max() == 6 * 20 * 20 - 1


def test_arrays_of_versions_without_records_stay_valid(tmp_path: Path, source: FileSource) -> None:
    container = tmp_path / "volume.zarr"
    import_source("lab", source, container, BLOCK)
    for name in ("raw", "labels"):
        metadata = container / name / "s0" / "zarr.json"
        document = json.loads(metadata.read_text())
        del document["attributes"]["key"], document["attributes"]["block_size"]
        metadata.write_text(json.dumps(document))
    shutil.rmtree(tmp_path / "tracking")
    before = modification_times(container)
    assert not import_source("lab", source, container, BLOCK)
    assert modification_times(container) == before
    run = run_of_sources(tmp_path, BLOCK, {"lab": dump_config(source)})
    with h5py.File(source.path) as file:
        np.testing.assert_array_equal(run.open_raw("lab").read(Box.of_shape((6, 20, 20))), file["raw"][:])
    assert not all_conversions(run)
    array = open_volume(container, "raw").array
    array.file((0, 0, 0)).unlink()
    with pytest.raises(UserError, match=rf"is missing; delete {container} and import the source anew with .*import"):
        run.open_raw("lab").read(Box.of_shape((1, 1, 1)))
