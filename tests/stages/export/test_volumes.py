"""Exported volumes, read with other programs' readers: voxel by voxel what the run has, at any threshold."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
import yaozarrs
import zarr
from bucket_server import bucket_server
from toy_tasks import wait_until
from voronoi_run import SHAPE, make_run, store_affinities, stored
from yaozarrs import v04, v05

from pipeline.api import agglomerate, extract_fragments, segment
from pipeline.engine.chain import run_stages
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.stages.auditing import audit
from pipeline.stages.export.targets import ExportOptions, export_run, export_stages
from pipeline.stages.export.volume import volume_stages
from pipeline.volumes import Box, create_volume
from pipeline.volumes.exports import Form, read_file
from pipeline.volumes.locations import Location
from pipeline.volumes.pyramids import downsample
from pipeline.volumes.storage import list_keys

SCRIPT = Path(__file__).parents[3] / "workflows" / "08_export.py"
THRESHOLD = 0.45
"""Not one that the run has written."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Segmented, with thresholds of its own."""
    run = make_run(tmp_path_factory.mktemp("run"), pyramid={"smallest": 6}, segment={"thresholds": [0.3, THRESHOLD]})
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    return run


def export(run: Run, to: str | Path, target: Any, **options: Any) -> None:
    chosen = ExportOptions(target, str(to), **{"threshold": THRESHOLD, **options})
    assert run_stages(run, export_stages(run, chosen), False)


def levels(run: Run, name: str) -> list[np.ndarray]:
    """A volume of the region and its coarser levels, as they must be."""
    finest = stored(run, name)
    finest = finest[1:, 2:, 3:] if name == "raw" else finest
    found = [finest]
    for step in [(1, 2, 2), (1, 2, 2), (2, 2, 2)]:
        found.append(downsample(found[-1], step, "mean" if name in ("raw", "affinities") else "majority"))
    return found


def test_precomputed_volumes_are_those_of_the_run(tmp_path: Path, finished: Run) -> None:
    export(finished, tmp_path, "precomputed")
    for name, dataset in {"raw": "raw", "segmentation": f"segmentation/{THRESHOLD}"}.items():
        for level, expected in enumerate(levels(finished, dataset)):
            spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{tmp_path}/{name}/", "scale_index": level}
            volume = ts.open(spec, open=True, read=True).result()
            np.testing.assert_array_equal(volume[..., 0].read().result().transpose(), expected)
            assert volume.spec().to_json()["scale_metadata"]["sharding"]["@type"] == "neuroglancer_uint64_sharded_v1"


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_ngff_volumes_are_those_of_the_run_and_valid(tmp_path: Path, finished: Run, version: Any) -> None:
    export(finished, tmp_path, "ngff", ngff=version)
    names = {
        "raw": "raw",
        "affinities": "affinities",
        "raw/labels/segmentation": f"segmentation/{THRESHOLD}",
    }
    for name, dataset in names.items():
        for level, expected in enumerate(levels(finished, dataset)):
            place = tmp_path / name / f"s{level}"
            driver = "zarr3" if version == "0.5" else "zarr"
            volume = ts.open({"driver": driver, "kvstore": f"file://{place}/"}, open=True, read=True).result()
            np.testing.assert_array_equal(volume.read().result(), expected)
            if version == "0.4":
                np.testing.assert_array_equal(zarr.open(str(place), mode="r")[:], expected)
    if version == "0.5":
        for name in ("", *names):
            yaozarrs.validate_zarr_store(str(tmp_path / name))
        label = yaozarrs.open_group(str(tmp_path / "raw" / "labels" / "segmentation")).ome_metadata()
        assert isinstance(label, v05.LabelImage)
    else:
        v04.Image.model_validate_json((tmp_path / "raw" / ".zattrs").read_text())
        v04.Image.model_validate_json((tmp_path / "affinities" / ".zattrs").read_text())
        text = (tmp_path / "raw" / "labels" / "segmentation" / ".zattrs").read_text()
        label = v04.LabelImage.model_validate_json(text)
    ids, sizes = sizes_of(finished)
    properties = [item.label_value for item in label.image_label.properties or ()]
    assert properties == ids.tolist() == sorted(c.label_value for c in label.image_label.colors or ())
    file, inside = ("zarr.json", ["attributes", "ome"]) if version == "0.5" else (".zattrs", [])
    document = json.loads((tmp_path / "raw" / "labels" / "segmentation" / file).read_text())
    for name in inside:
        document = document[name]
    told = {item["label-value"]: item["size"] for item in document["image-label"]["properties"]}
    assert told == dict(zip(ids.tolist(), sizes.tolist(), strict=True))


def sizes_of(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Ids and voxels of the segments, counted in the volume."""
    ids, sizes = np.unique(stored(run, f"segmentation/{THRESHOLD}"), return_counts=True)
    return ids[ids > 0], sizes[ids > 0]


def test_neuroglancer_finds_properties_of_every_segment(tmp_path: Path, finished: Run) -> None:
    export(finished, tmp_path, "precomputed", arrays=("segmentation",))
    info = json.loads((tmp_path / "segmentation" / "info").read_text())
    assert info["type"] == "segmentation" and info["segment_properties"] == "segment_properties" and "mesh" not in info
    assert info["scales"][0]["encoding"] == "compressed_segmentation"
    inline = json.loads((tmp_path / "segmentation" / "segment_properties" / "info").read_text())["inline"]
    ids, sizes = sizes_of(finished)
    values = {column["id"]: column["values"] for column in inline["properties"]}
    assert inline["ids"] == [str(segment) for segment in ids.tolist()] and values["size"] == sizes.tolist()
    volume, fragments = stored(finished, f"segmentation/{THRESHOLD}"), stored(finished, "fragments")
    for place in (0, len(ids) // 2, len(ids) - 1):
        z, y, x = np.nonzero(volume == ids[place])
        assert values["fragments"][place] == len(np.unique(fragments[volume == ids[place]]))
        centre = [8 * (x.mean() + 0.5) + 24, 8 * (y.mean() + 0.5) + 16, 40 * (z.mean() + 0.5) + 40]
        np.testing.assert_allclose([values[f"centre_{axis}"][place] for axis in "xyz"], centre, atol=0.01)


def test_labels_are_exported_as_they_are_on_raw(tmp_path: Path, finished: Run) -> None:
    run = make_run(tmp_path / "run", pyramid={"smallest": 6})
    labels = np.random.default_rng(3).integers(0, 2**50, SHAPE).astype(np.uint64)
    place: dict[str, Any] = {"voxel_size": (40, 8, 8)}
    create_volume(run.volume, "labels", SHAPE, "uint64", chunks=SHAPE, **place).write(Box.of_shape(SHAPE), labels)
    export(run, tmp_path / "out", "precomputed", arrays=("labels",))
    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{tmp_path}/out/labels/"}
    volume = ts.open(spec, open=True, read=True).result()
    np.testing.assert_array_equal(volume[..., 0].read().result().transpose(), labels[1:, 2:, 3:])
    assert volume.domain.origin == (3, 2, 1, 0), "where it lies in raw"
    with pytest.raises(UserError, match="no labels"):
        export(finished, tmp_path / "no", "ngff", arrays=("labels",))


def test_what_this_run_has_not_written_is_left_alone(tmp_path: Path, finished: Run) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "info").write_text("{}")
    with pytest.raises(UserError, match="has not written"):
        export(finished, tmp_path, "precomputed", arrays=("raw",))
    assert (tmp_path / "raw" / "info").read_text() == "{}"


@pytest.mark.parametrize("target", ["precomputed", "ngff"])
def test_another_threshold_takes_the_place_only_if_the_user_says_so(tmp_path: Path, finished: Run, target: Any) -> None:
    extra: dict[str, Any] = {"meshes": True, "minimum_size": 50} if target == "precomputed" else {}
    place, arrays = tmp_path / "out", ("raw", "segmentation")
    former, other = (ExportOptions(target, str(place), each, arrays, **extra) for each in (THRESHOLD, 0.3))
    shutil.rmtree(finished.tracking / "exports", ignore_errors=True)  # those of other tests are gone
    assert export_run(finished, former)
    before = contents(place)
    with pytest.raises(
        UserError, match=r"segmentation holds threshold 0\.45 of this run; name another place for 0\.3,"
    ):
        export_run(finished, other)
    assert contents(place) == before
    form: Form = "precomputed" if target == "precomputed" else "ngff-0.5"
    volume_stages(finished, str(place), form, "segmentation", 0.3)[0].drop()
    assert export_run(finished, former), "killed while it was replaced"
    assert contents(place) == before
    for options in (replace(other, meshes=False), former, other):
        assert export_run(finished, options, overwrite=True) and export_run(finished, options), "done, and goes on"
        fresh = replace(options, to=str(tmp_path / f"{options.threshold} {options.meshes}"))
        assert export_run(finished, fresh)
        assert contents(place) == contents(Path(fresh.to)), "nothing of the former threshold is left"
    assert all(found.sound for found in audit(finished))


def test_meshes_of_another_least_size_take_the_place_only_if_the_user_says_so(tmp_path: Path, finished: Run) -> None:
    extra: dict[str, Any] = {"arrays": ("segmentation",), "meshes": True, "skeletons": True}
    place = tmp_path / "out"
    former, other = (ExportOptions("precomputed", str(place), THRESHOLD, minimum_size=n, **extra) for n in (50, 400))
    assert export_run(finished, former)
    before = contents(place)
    with pytest.raises(UserError, match=r"mesh holds those of segments of at least 50 voxels; name another place"):
        export_run(finished, other)
    assert contents(place) == before
    for options in (other, former):
        assert export_run(finished, options, overwrite=True) and export_run(finished, options), "done, and goes on"
        fresh = replace(options, to=str(tmp_path / f"{options.minimum_size}"))
        assert export_run(finished, fresh)
        assert contents(place) == contents(Path(fresh.to)), "no file is left of a segment that has none"
    assert len(contents(tmp_path / "400")) < len(before)


def test_meshes_go_with_the_segments_that_they_were_made_of(tmp_path: Path, finished: Run) -> None:
    shutil.copytree(finished.directory, tmp_path / "run")
    run = make_run(tmp_path / "run", pyramid={"smallest": 6}, segment={"thresholds": [0.3, THRESHOLD]})
    changed = make_run(tmp_path / "run", pyramid={"smallest": 6}, segment={"minimum_size": 400})
    place = tmp_path / "out"
    options = ExportOptions("precomputed", str(place), THRESHOLD, ("segmentation",), meshes=True, minimum_size=50)
    assert export_run(run, replace(options, skeletons=True))
    assert export_run(changed, replace(options, meshes=False), overwrite=True)
    info = json.loads((place / "segmentation" / "info").read_text())
    assert "mesh" not in info and "skeletons" not in info
    assert not any((place / "segmentation" / folder).exists() for folder in ("mesh", "skeletons", "swc"))
    assert export_run(changed, options, overwrite=True)
    assert json.loads((place / "segmentation" / "info").read_text())["mesh"] == "mesh"


def test_a_further_volume_stands_in_the_lists_beside_those_that_are_there(tmp_path: Path, finished: Run) -> None:
    def listed(folder: str, of: str) -> list[str]:
        members: list[str] = json.loads((tmp_path / "ngff" / folder / "zarr.json").read_text())["attributes"]["ome"][of]
        return sorted(members)

    for arrays in (("affinities",), ("segmentation",), ("raw",)):
        export(finished, tmp_path / "ngff", "ngff", arrays=arrays)
    assert listed("OME", "series") == ["affinities", "raw"] and listed("raw/labels", "labels") == ["segmentation"]
    for arrays in (("segmentation",), ("raw",)):
        export(finished, tmp_path / "pre", "precomputed", arrays=arrays)
    noted = json.loads((tmp_path / "pre" / ".emdistill.json").read_text())
    assert noted == {"contents": ["raw", "segmentation"], "threshold": THRESHOLD}, "which the viewer shows"


def test_a_place_taken_in_another_format_is_said_to_be_this_runs(tmp_path: Path, finished: Run) -> None:
    export(finished, tmp_path, "ngff", arrays=("raw",))
    with pytest.raises(UserError, match=r"this run's raw as ngff-0\.5 already"):
        export(finished, tmp_path, "ngff", ngff="0.4", arrays=("raw",))


def test_killed_before_the_first_block_it_goes_on(tmp_path: Path, finished: Run) -> None:
    forms: tuple[Form, ...] = ("precomputed", "ngff-0.4")
    for form in forms:
        place = tmp_path / form
        (first, *_) = volume_stages(finished, str(place), form, "raw", 0.5)
        first.prepare()
        target = "precomputed" if form == "precomputed" else "ngff"
        export(finished, place, target, arrays=("raw",), ngff="0.4")
        export(finished, tmp_path / f"{form} at once", target, arrays=("raw",), ngff="0.4")
        assert contents(place) == contents(tmp_path / f"{form} at once")


def test_an_export_that_is_done_is_not_made_again_and_one_that_is_gone_is(tmp_path: Path, finished: Run) -> None:
    export(finished, tmp_path / "out", "precomputed", arrays=("segmentation",))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.shard")}
    export(finished, tmp_path / "out", "precomputed", arrays=("segmentation",))
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.shard")}
    content = contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    export(finished, tmp_path / "out", "precomputed", arrays=("segmentation",))
    assert contents(tmp_path / "out") == content


def test_an_export_to_a_bucket_has_the_same_voxels_and_files(tmp_path: Path, finished: Run) -> None:
    options: dict[str, Any] = {"arrays": ("segmentation",), "meshes": True, "skeletons": True, "minimum_size": 50}
    export(finished, tmp_path, "precomputed", **options)
    with bucket_server("results") as url:
        export(finished, "s3://results/run", "precomputed", **options)
        export(finished, "s3://results/images", "ngff", arrays=("raw", "segmentation"))
        place = Location.of("s3://results/run")
        stored_there = {name: read_file(place, name) for name in list_keys(place)}
        assert stored_there == contents(tmp_path) and "segmentation/mesh/0.shard" in stored_there
        base = {"endpoint": url, "aws_region": "us-east-1", "bucket": "results", "driver": "s3"}
        for driver, path, squeeze in (
            ("neuroglancer_precomputed", "run/segmentation/", True),
            ("zarr3", "images/raw/labels/segmentation/s0/", False),
        ):
            kvstore = {**base, "path": path, "aws_credentials": {"type": "environment"}}
            volume = ts.open({"driver": driver, "kvstore": kvstore}, open=True, read=True).result()
            data = volume[..., 0].read().result().transpose() if squeeze else volume.read().result()
            np.testing.assert_array_equal(data, stored(finished, f"segmentation/{THRESHOLD}"))


def test_killed_in_the_middle_the_same_command_gives_the_same_files(tmp_path: Path, finished: Run) -> None:
    shutil.copytree(finished.directory, tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    command = [sys.executable, str(SCRIPT), str(config), "--target", "precomputed", "--threshold", str(THRESHOLD)]
    command += ["--set", "cluster.executor=local"]
    export(finished, tmp_path / "expected", "precomputed")
    killed = subprocess.Popen([*command, "--to", str(tmp_path / "out")], stderr=subprocess.DEVNULL)
    wait_until(lambda: any((tmp_path / "out").rglob("*.shard")))
    killed.kill()
    killed.wait()
    noted = json.loads((tmp_path / "run" / "tracking" / "exports" / "commands.json").read_text())
    assert noted["exports"][-1]["to"] == str(tmp_path / "out"), "the audit knows what was begun"
    done = subprocess.run([*command, "--to", str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    following = done.stderr.splitlines()[-1]
    assert following.startswith("next: ") and following.endswith(f"config.json --export {tmp_path / 'out'}")
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def contents(folder: Path) -> dict[str, bytes]:
    """What lies below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
