"""A key sends the page one state: the page builds itself anew for each, flickers, and hears no key meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import neuroglancer
import numpy as np
import pytest
from voronoi_run import make_run, store_affinities

from pipeline.api import agglomerate, extract_fragments, segment
from pipeline.evaluation import SegmentationError
from pipeline.run import Run
from pipeline.viewer import joins as module
from pipeline.viewer import open_viewer
from pipeline.viewer.controls import SEGMENTS, Controls, named
from pipeline.viewer.joins import equivalences

PLACES = ((60.0, 40.0, 48.0), (340.0, 320.0, 288.0))
"""Of two errors in nanometres, near two corners of raw."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Segmented."""
    run = make_run(tmp_path_factory.mktemp("keys"))
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    return run


@pytest.fixture
def controls(run: Run) -> Iterator[Controls]:
    """Those of a viewer that looks at a written segmentation."""
    viewer = open_viewer(run)
    yield viewer.controls
    neuroglancer.stop()


def states_sent(controls: Controls) -> int:
    """How many states the page has been sent by now, with what followed from them."""
    controls._keys.submit(lambda: None).result()
    return int(controls.viewer.shared_state.change_count)


def visible(controls: Controls) -> list[str]:
    """The layers that are shown."""
    layers: list[dict[str, Any]] = controls.viewer.shared_state.raw_state["layers"]
    return [layer["name"] for layer in layers if layer.get("visible", True)]


def joined(controls: Controls) -> Any:
    """The fragments that the page joins."""
    return named(controls.viewer.shared_state.raw_state, SEGMENTS)[0]["equivalences"]


def test_a_threshold_comes_in_one_state(controls: Controls) -> None:
    assert controls.joins is not None
    assert visible(controls) == ["raw", controls.shown]
    for step in (0.05, 0.1):
        before = states_sent(controls)
        controls.change_threshold(step)
        assert states_sent(controls) == before + 1
        assert visible(controls) == ["raw", SEGMENTS]
        assert joined(controls) == equivalences(controls.joins.table(controls.threshold))


def test_an_error_comes_in_one_state_with_what_is_joined_there(
    controls: Controls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threshold is not written, and only fragments near the view are joined."""
    assert controls.joins is not None
    controls.errors = [SegmentationError("split", 1.0, (4, 9), (2, 2), (5, 5), 3, (1, 1, 1), place) for place in PLACES]
    controls.errors_at = 0.45
    table = controls.joins.table(0.45)
    monkeypatch.setattr(module, "MOST_JOINS", len(table) // 2)
    seen = []
    for place in PLACES:
        before = states_sent(controls)
        controls.go_to_error(1)
        assert states_sent(controls) == before + 1
        assert visible(controls) == ["raw", SEGMENTS]
        state = controls.viewer.shared_state.raw_state
        np.testing.assert_allclose(np.multiply(state["position"], (40, 8, 8)), place)
        assert named(state, SEGMENTS)[0]["segments"] == ["4", "9"]
        seen.append(joined(controls))
    assert seen[0] != seen[1], "each place has blocks of its own"
