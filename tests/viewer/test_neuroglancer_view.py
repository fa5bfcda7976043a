"""Neuroglancer shows each layer in its place and reads no more than it shows."""

from __future__ import annotations

import gc
import io
import logging
import os
import runpy
import signal
import subprocess
import sys
import tracemalloc
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import neuroglancer
import numpy as np
import pytest
import tensorstore as ts
from imported_sources import run_of_sources, with_sparse_raw
from neuroglancer import CoordinateSpace
from neuroglancer.local_volume import MeshesNotSupportedForVolume
from stored_arrays import write_zarr

from pipeline.config import dump_config, parse_config
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.stages.importing import ensure_imported
from pipeline.viewer import neuroglancer_link, open_viewer
from pipeline.viewer.neuroglancer_view import LazyVolume, Sliced, sampled_contrast
from pipeline.viewer.serving import RunViewer
from pipeline.volumes import Box, RunVolume, create_volume, delete_volume, open_volume

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean_up() -> Iterator[None]:
    """Each test has a server of its own and leaves logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    neuroglancer.stop()


def url_of(viewer: RunViewer, layer: str) -> str:
    """What a layer reads."""
    return str(viewer.state.layers[layer].source[0].url)


def read_by_http(viewer: RunViewer, layer: str) -> Any:
    """The finest level of a layer, opened by TensorStore where the browser would read it."""
    url, _, scheme = url_of(viewer, layer).partition("/|")
    driver = {"zarr3:": "zarr3", "zarr2:": "zarr"}[scheme]
    base, path = url.split("/data/")
    level = "/s0" if driver == "zarr3" else ""
    return ts.open(
        {"driver": driver, "kvstore": {"driver": "http", "base_url": base, "path": f"/data/{path}{level}/"}}
    ).result()


def lazy_volume(viewer: RunViewer, layer: str) -> LazyVolume:
    """The volume behind a layer that this process reads."""
    volume = neuroglancer.server.global_server.get_volume(url_of(viewer, layer).rpartition("/")[2])
    assert isinstance(volume, LazyVolume)
    return volume


def test_layers_are_those_that_exist(raw_run: Run) -> None:
    assert [layer.name for layer in open_viewer(raw_run).state.layers] == ["raw"]


def test_nothing_imported_is_a_users_error(empty_run: Run) -> None:
    with pytest.raises(UserError, match="no raw volume yet"):
        open_viewer(empty_run)


def test_the_best_segmentation_is_shown_over_raw_and_labels_have_the_same_key_always(untouched_run: Run) -> None:
    layers = open_viewer(untouched_run).state.layers
    assert [layer.name for layer in layers] == [
        "raw",
        "affinities",
        "fragments",
        "labels",
        "segmentation 0.25",
        "segmentation 0.50",
        "segmentation 0.75",
    ]
    assert [layer.name for layer in layers if layer.visible] == ["raw", "segmentation 0.50"]
    assert layers["fragments"].type == "segmentation"
    assert layers["affinities"].type == "image"


def test_the_view_counts_voxels_of_raw(untouched_run: Run) -> None:
    viewer = open_viewer(untouched_run)
    np.testing.assert_allclose(viewer.state.dimensions.scales, [40e-9, 8e-9, 8e-9])
    assert list(viewer.state.dimensions.units) == ["m", "m", "m"]


def test_the_view_opens_in_the_middle_of_the_validated_region(untouched_run: Run) -> None:
    position = open_viewer(untouched_run).state.position
    np.testing.assert_allclose(position, [10 + 24 + 0.5, 10 + 56 + 0.5, 2 + 72 + 0.5])


def test_a_link_leads_to_its_position_on_the_same_server(untouched_run: Run) -> None:
    first = neuroglancer_link(untouched_run, (800, 160, 96))
    second = neuroglancer_link(untouched_run, (1200, 400, 400))
    gc.collect()
    assert first != second
    assert first.split("/v/")[0] == second.split("/v/")[0]
    with urllib.request.urlopen(first) as answer:
        assert answer.status == 200
    viewer = open_viewer(untouched_run, (800, 160, 96))
    np.testing.assert_allclose(viewer.state.position, [20.5, 20.5, 12.5])


@pytest.mark.parametrize("within", [0.0, 0.5, 0.9])
def test_a_position_anywhere_in_a_voxel_shows_that_voxel(untouched_run: Run, within: float) -> None:
    """The middle of a voxel is what `errors.csv` says."""
    position = np.add((20, 20, 12), within) * (40, 8, 8)
    np.testing.assert_allclose(open_viewer(untouched_run, position.tolist()).state.position, [20.5, 20.5, 12.5])


def test_raw_that_begins_within_a_voxel_is_opened_at_the_voxel_of_a_position(tmp_path: Path) -> None:
    data, path = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8), tmp_path / "raw.zarr"
    write_zarr(path, data)
    source = {"kind": "file", "path": str(path), "voxel_size": [40, 8, 8], "offset": [410, 2, 0]}
    run = run_of_sources(tmp_path / "run", (2, 4, 4), {"s": source})
    ensure_imported(run)
    viewer = open_viewer(run, (410 + 1.5 * 40, 2 + 3.5 * 8, 5.5 * 8))
    first = [10, 0, 0]  # the nearest whole voxels, where the viewer shows it
    np.testing.assert_allclose(viewer.state.position, np.add(first, (1.5, 3.5, 5.5)))


@pytest.mark.parametrize("layer", ["raw", "affinities", "fragments", "segmentation 0.50", "labels"])
def test_the_server_hands_out_the_files_of_every_layer(untouched_run: Run, layer: str) -> None:
    name = layer.replace(" ", "/")
    viewer = open_viewer(untouched_run)  # what it serves is gone when it is
    served = read_by_http(viewer, layer)
    stored = open_volume(untouched_run.volume, name)
    np.testing.assert_array_equal(served.read().result(), stored.array[...])


def test_what_a_browser_cannot_read_is_read_here(untouched_run: Run) -> None:
    document = dump_config(untouched_run.config) | {"targets": {"unlabelled_id": 7}}
    viewer = open_viewer(Run(parse_config(document)))
    assert lazy_volume(viewer, "labels").voxel_offset.tolist() == [10, 10, 2]
    data, _ = lazy_volume(viewer, "labels").get_encoded_subvolume(
        "npz", np.array([0, 0, 0]), np.array([30, 32, 32]), "1,1,1"
    )
    stored = open_volume(untouched_run.volume, "labels").array[:30, :32, :32]
    shown = np.load(io.BytesIO(zlib.decompress(data)))
    np.testing.assert_array_equal(np.squeeze(shown).astype(np.uint64), np.where(stored == 7, 0, stored))


def huge(container: Path, name: str, dtype: str) -> RunVolume:
    """A volume of 27 · 10¹² voxels of which one chunk exists."""
    volume = create_volume(container, name, (30_000,) * 3, dtype, voxel_size=(8, 8, 8), chunks=(64, 64, 64))
    box = Box.of_shape((64, 64, 64))
    volume.write(box, np.ones(box.shape, dtype))
    return volume


def test_a_huge_volume_is_opened_and_shown_chunk_by_chunk(raw_run: Run, tmp_path: Path) -> None:
    huge(raw_run.volume.file, "fragments", "uint64")
    delete_volume(raw_run.volume, "raw")
    huge(tmp_path / "sparse.zarr", "raw", "uint8")
    run = with_sparse_raw(raw_run, tmp_path / "sparse.zarr")
    tracemalloc.start()
    viewer = open_viewer(run)
    for name in ("raw", "fragments"):
        assert np.any(read_by_http(viewer, name)[:32, :32, :32].read().result())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20


def test_meshes_that_would_load_the_whole_volume_are_refused(raw_run: Run) -> None:
    volume = LazyVolume(Sliced(open_volume(raw_run.volume, "raw")), dimensions=CoordinateSpace(names=["z", "y", "x"]))
    with pytest.raises(MeshesNotSupportedForVolume):
        volume.get_object_mesh(101)


def test_contrast_fits_the_data_not_the_type(raw_run: Run) -> None:
    volume = create_volume(raw_run.volume, "dim", (8, 8, 8), np.uint16, chunks=(8, 8, 8))
    volume.write(volume.box, np.arange(512, dtype=np.uint16).reshape(8, 8, 8) + 1000)
    low, high = sampled_contrast(volume)
    assert 1000 <= low < high <= 1512
    flat = create_volume(raw_run.volume, "flat", (2, 2, 2), np.uint8, chunks=(2, 2, 2))
    assert sampled_contrast(flat) == (0.0, 1.0)


def script(run: Run, *arguments: str) -> list[str]:
    """The command line of the workflow script."""
    run.save_config()
    return [str(ROOT / "workflows" / "07_view.py"), str(run.directory / "config.json"), *arguments]


def status_of(command: list[str], monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Exit status of a script that is run in this process."""
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(command[0], run_name="__main__")
    return end.value.code


def test_the_script_writes_report_and_picture(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "overview.png"
    assert status_of(script(finished_run, "--report", "--picture", str(picture)), monkeypatch) == 0
    assert picture.exists()
    assert (finished_run.directory / "report.html").exists()


def test_a_dry_run_says_what_would_be_shown(
    untouched_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(script(untouched_run, "--dry-run"), monkeypatch) == 0
    assert capsys.readouterr().out.startswith("would show raw, affinities, fragments")


def test_the_script_without_data_says_what_to_run_first(
    empty_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(script(empty_run), monkeypatch) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "import_data.py" in message


def _heed_ctrl_c() -> None:
    """Tests that run in the background of a shell ignore Ctrl-C, and so would the processes that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_the_script_serves_until_ctrl_c(raw_run: Run) -> None:
    with served_by_script(raw_run) as first_line, urllib.request.urlopen(address_in(first_line)) as answer:
        assert b"neuroglancer" in answer.read().lower()


def test_a_link_is_printed_alone_and_how_to_open_it_from_elsewhere(raw_run: Run) -> None:
    with served_by_script(raw_run, "--link") as first_line:
        assert first_line.strip() == address_in(first_line)


def address_in(line: str) -> str:
    """The address of a viewer."""
    return next(word for word in line.split() if word.startswith("http"))


@contextmanager
def served_by_script(run: Run, *options: str) -> Iterator[str]:
    """The first line of the script, which then serves until Ctrl-C."""
    command = [sys.executable, *script(run, *options)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=_heed_ctrl_c)
    assert process.stdout is not None
    line = process.stdout.readline()
    yield line
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    port = address_in(line).split(":")[2].split("/")[0]
    assert not options or f"ssh -N -L {port}:127.0.0.1:{port} " in rest
    assert process.wait(60) == 0
