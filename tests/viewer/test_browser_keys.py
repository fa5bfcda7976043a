"""neuroglancer in a real browser: keys show layers, change the threshold and walk through the errors."""

from __future__ import annotations

import numpy as np
import pytest
from browser import why_no_browser
from browser_window import BEGIN, Window, in_region, segment_of, some_voxels, wait_until
from voronoi_run import stored

from pipeline.evaluation import read_errors
from pipeline.evaluation.runs import ERRORS
from pipeline.run import Run

pytestmark = [
    pytest.mark.skipif(why_no_browser() is not None, reason=str(why_no_browser())),
]


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


def test_keys_change_the_threshold_and_its_ids_are_those_of_the_written_volume(
    window: Window, browsed_run: Run
) -> None:
    window.show("raw")
    controls = window.viewer.controls
    pictures = {}
    for key, threshold in (("u", 0.6), ("d", 0.1)):
        controls.step = abs(threshold - controls.threshold) / 2
        for _ in range(2):
            change_threshold(window, key)
        assert controls.threshold == pytest.approx(threshold)
        ids = stored(browsed_run, f"segmentation/{threshold:.2f}")
        hidden = [(8, y + BEGIN[1], x + BEGIN[2]) for y, x in np.argwhere(ids[8 - BEGIN[0]] == 0)[:2].tolist()]
        assert hidden or threshold > 0.1, "there are small segments"
        for voxel in (*some_voxels(8), *hidden):
            assert segment_of(window.under_mouse(voxel)["segments"]["value"]) == ids[in_region(voxel)]
        window.page.mouse.move(1, 1)
        pictures[threshold] = window.picture()
    assert (pictures[0.1] != pictures[0.6]).any(axis=-1).mean() > 0.05
    shown = [layer.name for layer in window.viewer.state.layers if layer.name.startswith("seg") and layer.visible]
    assert len(shown) == 1


def test_keys_walk_through_the_errors(window: Window, browsed_run: Run) -> None:
    errors = read_errors(browsed_run.directory / ERRORS)
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
