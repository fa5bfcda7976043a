"""neuroglancer in a real browser: it draws what the files hold, and ids are those in the files.

One viewer, one page: each test says first what the page is to show.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import console_errors, pixels, why_no_browser
from browser_window import Window, in_region, some_voxels, wait_until
from imported_sources import run_of_sources
from neuroglancer import CoordinateSpace
from stored_arrays import (
    raw_voxels,
    scale,
    translation,
    write_n5,
    write_ngff,
    write_precomputed,
    write_zarr,
    write_zarr3,
)
from voronoi_run import stored

from pipeline.engine.status.as_html import write_page
from pipeline.run import Run
from pipeline.stages.importing import ensure_imported
from pipeline.stages.run_status import read_status
from pipeline.viewer import write_report
from pipeline.viewer.layers import Layer
from pipeline.viewer.neuroglancer_view import neuroglancer_layer
from pipeline.viewer.serving import RunViewer

pytestmark = [
    pytest.mark.skipif(why_no_browser() is not None, reason=str(why_no_browser())),
]


def test_raw_is_drawn_where_and_as_bright_as_it_is(window: Window, browsed_run: Run) -> None:
    window.show("raw")
    controls = window.viewer.state.layers["raw"].shader_controls["normalized"]
    low, high = controls["range"] if isinstance(controls, dict) else controls.range
    raw, shown = stored(browsed_run, "raw"), pixels(window.page)
    for voxel in some_voxels(8):
        x, y = window.point(voxel)
        expected = np.clip((raw[voxel] - low) / (high - low), 0, 1) * 255
        np.testing.assert_allclose(shown[int(y), int(x)], expected, atol=3)


def test_affinities_are_drawn_as_colours(window: Window, browsed_run: Run) -> None:
    window.show("affinities")
    affinities, shown = stored(browsed_run, "affinities"), pixels(window.page)
    for voxel in some_voxels(8):
        x, y = window.point(voxel)
        at_z, at_y, at_x = in_region(voxel)
        np.testing.assert_allclose(shown[int(y), int(x)], affinities[:, at_z, at_y, at_x], atol=3)


@pytest.mark.parametrize("layer", ["fragments", "segmentation 0.10", "segmentation 0.60", "labels", "exported"])
def test_the_id_under_the_mouse_is_the_one_in_the_file(window: Window, browsed_run: Run, layer: str) -> None:
    window.show(layer)
    assert len(np.unique(window.picture().reshape(-1, 3), axis=0)) > 5, "objects have colours"
    dataset = {"exported": "segmentation/0.60"}.get(layer, layer.replace(" ", "/"))
    ids = stored(browsed_run, dataset)
    for voxel in some_voxels(8):
        expected = ids[voxel] if layer == "labels" else ids[in_region(voxel)]
        assert int(window.under_mouse(voxel)[layer]["value"]) == expected


def test_a_mesh_appears_when_a_segment_is_selected(window: Window, browsed_run: Run) -> None:
    window.show("exported", layout="3d")
    nothing = window.picture()
    ids, counts = np.unique(stored(browsed_run, "segmentation/0.60"), return_counts=True)
    largest = int(ids[1:][np.argmax(counts[1:])])
    window.show("exported", layout="3d", segments=[largest])
    wait_until(lambda: bool((window.picture() != nothing).any(axis=-1).mean() > 0.02))


@pytest.mark.parametrize("name", ["report.html", "status.html"])
def test_the_pages_of_a_run_have_no_errors(window: Window, browsed_run: Run, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "report.html":
        path = write_report(browsed_run)
    else:
        browsed_run.save_config()
        write_page(path, read_status(browsed_run, browsed_run.directory / "config.json"), 60)
    with window.page.context.browser.new_context() as context:  # type: ignore[union-attr]
        page = context.new_page()
        with console_errors(page) as errors:
            page.goto(path.as_uri())
            assert page.title()
            assert page.evaluate("() => [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert not errors


PLACES: dict[str, tuple[Callable[[Path, np.ndarray], None], dict[str, Any]]] = {
    "zarr 2": (lambda path, data: write_zarr(path, data, {"resolution": [40, 6, 4]}), {}),
    "zarr 2, x first": (lambda path, data: write_zarr(path, data.T), {"axes": "xyz", "voxel_size": [40, 6, 4]}),
    "zarr 3, sharded": (
        lambda path, data: write_zarr3(path, data, shard=(16, 32, 32)),
        {"voxel_size": [40, 6, 4], "offset": [400, 60, 40]},
    ),
    "N5": (lambda path, data: write_n5(path, data, {"resolution": [4, 6, 40]}), {"voxel_size": [40, 6, 4]}),
    "OME-NGFF 0.4": (lambda path, data: write_ngff(path, data, scale(40, 6, 4), translation(400, 60, 40)), {}),
    "precomputed": (lambda path, data: write_precomputed(path, data, voxel_offset=(10, 10, 10)), {}),
}
"""How raw is written, and what the config says about it."""


def test_raw_in_place_is_read_by_the_browser_and_lies_where_it_is_read(window: Window, tmp_path: Path) -> None:
    data, viewer, first = raw_voxels(), RunViewer(), {}
    with viewer.config_state.txn() as config:
        config.show_ui_controls = False
    with viewer.txn() as state:
        for number, (kind, (write, section)) in enumerate(PLACES.items()):
            path = tmp_path / f"{number}.{'n5' if kind == 'N5' else 'data'}"
            write(path, data)
            source = {"kind": "file", "path": str(path), **section}
            run = run_of_sources(tmp_path / f"run{number}", (8, 16, 16), {"s": source})
            ensure_imported(run)
            raw = run.open_raw("s")
            first[kind] = np.round(np.divide(raw.offset, raw.voxel_size)).astype(int)
            shown = neuroglancer_layer(viewer, Layer(kind, "intensity", raw), raw, images=False)
            assert str(shown.source[0].url).startswith("http"), "not through this process"
            state.layers.append(name=kind, layer=shown)
        state.dimensions = CoordinateSpace(names=["z", "y", "x"], units="nm", scales=[40, 6, 4])
        state.display_dimensions = ["x", "y", "z"]
    here = Window(window.run, viewer, window.page)
    window.page.goto(str(viewer))
    window.page.wait_for_function("() => window.viewer !== undefined && viewer.isReady()")
    here.show(*PLACES, position=(11.5, 25.5, 27.5))
    for y, x in np.random.default_rng(5).integers((12, 12), (38, 42), (4, 2)).tolist():
        voxel = np.array([11, y, x])
        found = here.under_mouse(voxel.tolist())
        assert {kind: found[kind]["value"] for kind in PLACES} == {
            kind: data[tuple(voxel - first[kind])] for kind in PLACES
        }
