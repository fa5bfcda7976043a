"""The viewer of a run in a real browser: what the page shows, and what is under its mouse."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import neuroglancer
import numpy as np
import pytest
from browser import PATIENCE, opened_browser, pixels
from voronoi_run import make_run, store_affinities, voronoi_cells

from pipeline.api import agglomerate, evaluate, extract_fragments, segment
from pipeline.engine.chain import run_stages
from pipeline.run import Run
from pipeline.stages.export.targets import ExportOptions, export_stages
from pipeline.viewer import open_viewer
from pipeline.viewer.serving import RunViewer
from pipeline.volumes import create_volume

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

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


def wait_until(done: Callable[[], bool]) -> None:
    """Wait for something in this process, while the page goes on."""
    end = time.monotonic() + PATIENCE / 1000
    while not done():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


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


def make_browsed_run(directory: Path) -> Run:
    """A run with everything: fragments, graph, two segmentations, labels, errors, meshes."""
    region = {"source": "a", "begin": list(BEGIN)}
    run = make_run(
        directory,
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


@contextmanager
def opened_window(run: Run) -> Iterator[Window]:
    """The page of a run's viewer, loaded."""
    viewer = open_viewer(run)
    with viewer.config_state.txn() as config:
        config.show_ui_controls = False  # bars grow by what they tell of the mouse, and the panel shrinks below it
    with opened_browser() as page:
        page.set_viewport_size(SIZE)
        page.goto(str(viewer))
        page.wait_for_function("() => window.viewer !== undefined && viewer.isReady()")
        yield Window(run, viewer, page)
    neuroglancer.stop()
