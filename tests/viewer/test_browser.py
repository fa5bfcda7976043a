"""neuroglancer in a real browser: it draws what the files hold, ids are those in the files, and keys do their work.

One run, one viewer, one page: each test says first what the page is to show.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import neuroglancer
import numpy as np
import pytest
from browser import PATIENCE, console_errors, opened_browser, pixels, why_no_browser
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
from voronoi_run import make_run, store_affinities, stored, voronoi_cells

from pipeline.api import agglomerate, evaluate, extract_fragments, segment
from pipeline.engine.chain import run_stages
from pipeline.engine.status.as_html import write_page
from pipeline.evaluation import read_errors
from pipeline.evaluation.runs import ERRORS
from pipeline.run import Run
from pipeline.stages.export.targets import ExportOptions, export_stages
from pipeline.stages.importing import ensure_imported
from pipeline.stages.run_status import read_status
from pipeline.viewer import open_viewer, write_report
from pipeline.viewer.layers import Layer
from pipeline.viewer.neuroglancer_view import neuroglancer_layer
from pipeline.viewer.serving import RunViewer
from pipeline.volumes import create_volume

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

pytestmark = [
    pytest.mark.skipif(why_no_browser() is not None, reason=str(why_no_browser())),
]

SHAPE = (16, 64, 80)
BEGIN = (1, 2, 3)
"""First voxel of the segmented region."""
SMALLEST = 60
"""Voxels of a segment at least; smaller ones are 0."""
SIZE: ViewportSize = {"width": 440, "height": 360}
"""Of the page, in pixels; a section of raw just fits, for each pixel costs time: there is no graphics card."""


@dataclass
class Window:
    """The viewer of a run and the page that shows it."""

    run: Run
    viewer: RunViewer
    page: Page

    def show(self, *layers: str, layout: str = "xy", position: Sequence[float] = (8.5, 34.5, 43.5), **of: Any) -> None:
        """Show some layers alone, without axes, and wait until all is drawn."""
        with self.viewer.txn() as state:
            for layer in state.layers:
                layer.visible = layer.name in layers
                if layer.type == "segmentation":
                    layer.layer.segments = of.get("segments", [])
            state.layout = layout
            state.position = position
            state.cross_section_scale = 0.2
            state.show_axis_lines = state.show_default_annotations = state.show_scale_bar = False
            state.show_slices = False
        self.settle()

    def settle(self) -> None:
        """Wait until page and process agree, and all is drawn.

        The page builds itself anew for each state that it is sent: it forgets where the mouse is, and hears no key.
        """
        controls = getattr(self.viewer, "controls", None)
        state = "() => JSON.stringify(viewer.state.toJSON(), (_, v) => typeof v === 'bigint' ? v.toString() : v)"
        wait_until(
            lambda: (
                not (controls and controls.busy)
                and json.loads(self.page.evaluate(state)) == self.viewer.shared_state.raw_state
            )
        )
        self.wait("() => viewer.isReady()")

    def wait(self, condition: str, *arguments: Any) -> Any:
        """Wait until something holds in the page, and return it; else tell what the page has."""
        from playwright.sync_api import TimeoutError as TakesTooLong

        try:
            return self.page.wait_for_function(condition, arg=arguments[0] if arguments else None).json_value()
        except TakesTooLong:
            mouse = "[viewer.mouseState.active, Array.from(viewer.mouseState.position)]"
            found = f"[{mouse}, viewer.layerSelectedValues.toJSON(), viewer.isReady(), viewer.state.toJSON()]"
            pytest.fail(f"{condition}: {self.page.evaluate(f'() => JSON.stringify({found})')}")

    def picture(self) -> np.ndarray:
        """The panel, (h, w, 3) uint8."""
        x, y, width, height = self.panel()
        return pixels(self.page)[int(y) + 4 : int(y + height) - 4, int(x) + 4 : int(x + width) - 4]

    def panel(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the panel on the page."""
        left, top, width, height = self.wait(
            "name => { const found = document.querySelector(name)?.getBoundingClientRect();"
            " return found?.width > 0 && [found.x, found.y, found.width, found.height]; }",
            ".neuroglancer-rendered-data-panel",
        )
        return left, top, width, height

    def point(self, voxel: Sequence[int]) -> tuple[float, float]:
        """Where on the page the middle of a voxel of raw is, in the section that is shown."""
        left, top, width, height = self.panel()
        _, y, x = map(float, self.viewer.state.position)
        sizes = np.asarray(self.viewer.state.dimensions.scales, float)
        _, down, right = sizes / sizes.min() / float(self.viewer.state.cross_section_scale)  # pixels of a voxel
        return left + width / 2 + (voxel[2] + 0.5 - x) * right, top + height / 2 + (voxel[1] + 0.5 - y) * down

    def under_mouse(self, voxel: Sequence[int]) -> dict[str, Any]:
        """What neuroglancer says is under the mouse at a voxel of raw, by layer."""
        self.page.mouse.move(*self.point(voxel))
        found: dict[str, Any] = self.wait(  # a chunk may still be on its way
            """([y, x]) => {
                const mouse = viewer.mouseState, values = viewer.layerSelectedValues;
                if (!mouse.updateUnconditionally()) return false;
                if (Math.floor(mouse.position[1]) !== y || Math.floor(mouse.position[2]) !== x) return false;
                values.handleChange();
                return Object.values(values.toJSON()).every(found => found.value != null) && values.toJSON();
            }""",
            list(voxel[1:]),
        )
        return found

    def press(self, key: str) -> None:
        """Press a key in the panel, when the page would hear it."""
        x, y, width, height = self.panel()
        self.page.mouse.move(x + width / 3, y + height / 3)
        self.wait("() => viewer.element.contains(document.activeElement)")
        self.page.keyboard.press(key)


def change_threshold(window: Window, key: str) -> None:
    """Press a key and wait until the threshold is another one, and shown."""
    controls, before = window.viewer.controls, window.viewer.controls.threshold
    window.press(key)
    wait_until(lambda: controls.threshold != before)
    window.settle()


def go_to_error(window: Window, key: str, number: int) -> None:
    """Press a key and wait until the view has moved to an error."""
    window.press(key)
    wait_until(lambda: window.viewer.controls.at_error == number)
    window.settle()


def wait_until(done: Callable[[], bool]) -> None:
    """Wait for something in this process, while the page goes on."""
    end = time.monotonic() + PATIENCE / 1000
    while not done():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with everything: fragments, graph, two segmentations, labels, errors, meshes."""
    region = {"source": "a", "begin": list(BEGIN)}
    run = make_run(
        tmp_path_factory.mktemp("run") / "run",
        shape=SHAPE,
        volumes={"sources": {"a": {"kind": "phantom"}}, "segment": region, "validate": region},
        predict={"block_size": [8, 32, 40], "tile_size": [8, 16, 20]},
        segment={"thresholds": [0.1, 0.6], "minimum_size": SMALLEST},
    )
    store_affinities(run)
    labels = np.zeros(SHAPE, np.uint64)
    labels[BEGIN[0] :, BEGIN[1] :, BEGIN[2] :] = voronoi_cells(tuple(np.subtract(SHAPE, BEGIN))) // 2 + 1
    place = create_volume(run.volume, "labels", SHAPE, np.uint64, voxel_size=(40, 8, 8), chunks=(8, 32, 40))
    place.write(place.box, labels)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    evaluate(run)
    options = ExportOptions("precomputed", str(run.directory / "exported"), 0.6, meshes=True, minimum_size=SMALLEST)
    assert run_stages(run, export_stages(run, options), overwrite=False)
    return run


@pytest.fixture(scope="module")
def window(run: Run) -> Iterator[Window]:
    """The page, loaded."""
    viewer = open_viewer(run)
    with viewer.config_state.txn() as config:
        config.show_ui_controls = False  # bars grow by what they tell of the mouse, and the panel shrinks below it
    with opened_browser() as page:
        page.set_viewport_size(SIZE)
        page.goto(str(viewer))
        page.wait_for_function("() => window.viewer !== undefined && viewer.isReady()")
        yield Window(run, viewer, page)
    neuroglancer.stop()


def some_voxels(section: int, count: int = 5) -> Iterator[tuple[int, int, int]]:
    """Voxels of the segmented region in a section, counted in raw, that a panel shows."""
    rng = np.random.default_rng(3)
    for y, x in rng.integers((6, 6), (SHAPE[1] - 6, SHAPE[2] - 6), (count, 2)).tolist():
        yield section, y, x


def segment_of(value: Any) -> int:
    """The segment that a fragment under the mouse is shown as; hidden ones are 0."""
    return int((value["value"] or 0) if isinstance(value, dict) else value)


def in_region(voxel: Sequence[int]) -> tuple[int, ...]:
    """A voxel of raw as the arrays of the run count it."""
    return tuple(v - b for v, b in zip(voxel, BEGIN, strict=True))


def test_raw_is_drawn_where_and_as_bright_as_it_is(window: Window, run: Run) -> None:
    window.show("raw")
    controls = window.viewer.state.layers["raw"].shader_controls["normalized"]
    low, high = controls["range"] if isinstance(controls, dict) else controls.range
    raw, shown = stored(run, "raw"), pixels(window.page)
    for voxel in some_voxels(8):
        x, y = window.point(voxel)
        expected = np.clip((raw[voxel] - low) / (high - low), 0, 1) * 255
        np.testing.assert_allclose(shown[int(y), int(x)], expected, atol=3)


def test_affinities_are_drawn_as_colours(window: Window, run: Run) -> None:
    window.show("affinities")
    affinities, shown = stored(run, "affinities"), pixels(window.page)
    for voxel in some_voxels(8):
        x, y = window.point(voxel)
        at_z, at_y, at_x = in_region(voxel)
        np.testing.assert_allclose(shown[int(y), int(x)], affinities[:, at_z, at_y, at_x], atol=3)


@pytest.mark.parametrize("layer", ["fragments", "segmentation 0.10", "segmentation 0.60", "labels", "exported"])
def test_the_id_under_the_mouse_is_the_one_in_the_file(window: Window, run: Run, layer: str) -> None:
    window.show(layer)
    assert len(np.unique(window.picture().reshape(-1, 3), axis=0)) > 5, "objects have colours"
    dataset = {"exported": "segmentation/0.60"}.get(layer, layer.replace(" ", "/"))
    ids = stored(run, dataset)
    for voxel in some_voxels(8):
        expected = ids[voxel] if layer == "labels" else ids[in_region(voxel)]
        assert int(window.under_mouse(voxel)[layer]["value"]) == expected


def test_the_keys_of_the_layers_show_and_hide_them(window: Window) -> None:
    window.show("raw")
    before = window.picture()
    for key, name in enumerate(("raw", "affinities", "fragments", "labels"), 1):
        shown = name == "raw"
        for _ in range(2):
            shown = not shown
            window.press(f"{key}")
            window.wait(f"shown => viewer.layerManager.getLayerByName('{name}').visible === shown", shown)
        window.wait("() => viewer.isReady()")
    np.testing.assert_array_equal(window.picture(), before)


def test_keys_change_the_threshold_and_its_ids_are_those_of_the_written_volume(window: Window, run: Run) -> None:
    window.show("raw")
    controls = window.viewer.controls
    pictures = {}
    for key, threshold in (("u", 0.6), ("d", 0.1)):
        controls.step = abs(threshold - controls.threshold) / 2
        for _ in range(2):
            change_threshold(window, key)
        assert controls.threshold == pytest.approx(threshold)
        ids = stored(run, f"segmentation/{threshold:.2f}")
        hidden = [(8, y + BEGIN[1], x + BEGIN[2]) for y, x in np.argwhere(ids[8 - BEGIN[0]] == 0)[:2].tolist()]
        assert hidden or threshold > 0.1, "there are small segments"
        for voxel in (*some_voxels(8), *hidden):
            assert segment_of(window.under_mouse(voxel)["segments"]["value"]) == ids[in_region(voxel)]
        window.page.mouse.move(1, 1)
        pictures[threshold] = window.picture()
    assert (pictures[0.1] != pictures[0.6]).any(axis=-1).mean() > 0.05
    assert not [layer.name for layer in window.viewer.state.layers if layer.name.startswith("seg") and layer.visible][
        1:
    ]


def test_a_mesh_appears_when_a_segment_is_selected(window: Window, run: Run) -> None:
    window.show("exported", layout="3d")
    nothing = window.picture()
    ids, counts = np.unique(stored(run, "segmentation/0.60"), return_counts=True)
    largest = int(ids[1:][np.argmax(counts[1:])])
    window.show("exported", layout="3d", segments=[largest])
    wait_until(lambda: bool((window.picture() != nothing).any(axis=-1).mean() > 0.02))


def test_keys_walk_through_the_errors(window: Window, run: Run) -> None:
    errors = read_errors(run.directory / ERRORS)
    assert len(errors) > 1
    window.show("raw", position=(2.5, 10.5, 10.5))
    controls = window.viewer.controls
    seen = []
    for key, number in (("j", 0), ("j", 1), ("k", 0), ("k", len(errors) - 1)):
        go_to_error(window, key, number)
        error = errors[number]
        expected = np.asarray(error.position) / (40, 8, 8)
        at = window.page.evaluate("() => Array.from(viewer.navigationState.position.value)")
        np.testing.assert_allclose(at, expected, atol=1e-3)
        voxel = np.floor(expected).astype(int)
        shown = window.viewer.state.layers[controls.shown]
        assert sorted(map(int, shown.segments)) == sorted(set(error.segments))
        assert segment_of(window.under_mouse(voxel.tolist())[controls.shown]["value"]) in error.segments
        window.page.mouse.move(1, 1)
        seen.append(window.picture())
    assert (seen[0] != seen[1]).any()
    assert "split" in window.page.inner_text("body") or "merge" in window.page.inner_text("body")


@pytest.mark.parametrize("name", ["report.html", "status.html"])
def test_the_pages_of_a_run_have_no_errors(window: Window, run: Run, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "report.html":
        path = write_report(run)
    else:
        run.save_config()
        write_page(path, read_status(run, run.directory / "config.json"), 60)
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
