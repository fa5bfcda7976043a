"""Fragments are joined at any threshold as the written segmentation joins them, and a view is told what it needs."""

from __future__ import annotations

import numpy as np
import pytest
from voronoi_run import make_run, store_affinities, stored

from pipeline.api import agglomerate, extract_fragments, segment
from pipeline.config import dump_config, parse_config
from pipeline.run import Run
from pipeline.viewer import joins as module
from pipeline.viewer.joins import Joins, equivalences
from pipeline.viewer.layers import existing_layers
from pipeline.viewer.neuroglancer_view import open_joins


@pytest.fixture(scope="module", params=[0, 40])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Segmented at two thresholds, with and without a smallest size."""
    run = make_run(tmp_path_factory.mktemp("joins"), segment={"thresholds": [0.3, 0.6], "minimum_size": request.param})
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    return run


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_joined_fragments_are_the_written_segmentation(run: Run, threshold: float) -> None:
    joined = Joins(run)
    named = {each: each for each in np.unique(stored(run, "fragments")).tolist()}
    for name, *fragments in equivalences(joined.table(threshold)):
        assert int(name) <= min(map(int, fragments)), "neuroglancer calls a set after its smallest id"
        named |= {int(fragment): int(name) for fragment in fragments}
    shown = np.vectorize(named.__getitem__, otypes=[np.uint64])(stored(run, "fragments"))
    np.testing.assert_array_equal(shown, stored(run, f"segmentation/{threshold:.2f}"))


def test_of_many_fragments_those_near_the_view_are_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = Joins(run)
    table = joined.table(0.6)
    near, far = np.zeros(3), np.asarray(joined.grid.region.shape) - 1.0
    monkeypatch.setattr(module, "MOST_JOINS", len(table) // 2)
    told = joined.seen(table, near, 50.0)
    assert 0 < len(told) <= len(table) // 2
    first, end = joined.grid.fragment_ids(joined.grid.block(0))
    inside = (table[:, 0] >= first) & (table[:, 0] < end)
    np.testing.assert_array_equal(
        told[: inside.sum()], table[inside], "the block in the middle of the view comes first"
    )
    assert told.tobytes() != joined.seen(table, far, 50.0).tobytes()
    assert len(joined.seen(table, np.asarray(joined.grid.region.shape) * 5.0, 50.0)) == 0, (
        "beside the region is nothing"
    )


def test_no_graph_in_a_huge_run_is_held(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = existing_layers(run)
    assert open_joins(run, layers) is not None
    monkeypatch.setattr("pipeline.viewer.neuroglancer_view.MOST_EDGES", 3)
    assert open_joins(run, layers) is None


def test_a_database_that_is_away_keeps_nobody_from_looking(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    document = dump_config(run.config) | {"rag": {"url": "postgresql://nobody@127.0.0.1:1/graphs"}}
    assert open_joins(Run(parse_config(document)), existing_layers(run)) is None
    assert "no key changes the threshold" in caplog.text
