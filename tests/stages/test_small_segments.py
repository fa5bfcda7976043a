"""`segment.small_segments` counts wherever fragments are joined: volumes, the sweep, the viewer, exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import networkx as nx
import numpy as np
import pytest
from voronoi_run import make_run, store_affinities, stored

from pipeline.engine.chain import run_stages
from pipeline.engine.tracking.progress import Progress, progress_of
from pipeline.evaluation.contingency import contingency_table
from pipeline.evaluation.scored_graph import scored_edges, small_segments
from pipeline.evaluation.sweep import scores_of_table, sweep_thresholds
from pipeline.rag import open_rag
from pipeline.run import Run
from pipeline.stages.by_script import agglomerate, chained_stages, extract_fragments, segment
from pipeline.stages.export.targets import ExportOptions, export_stages
from pipeline.stages.segment import SegmentTask
from pipeline.viewer.joins import Joins
from pipeline.volumes import create_volume

THRESHOLDS = [0.3, 0.45]
SMALL = {"below": 300, "threshold": 0.7}
RAW = (9, 42, 38)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Segmented at two thresholds, with small segments joined, and two classes that are kept apart."""
    folder = tmp_path_factory.mktemp("small")
    classes = (np.indices(RAW)[2] > 20).astype(np.uint8)
    volume = create_volume(folder / "classes.zarr", "c", RAW, "uint8", chunks=(4, 16, 16), voxel_size=(40, 8, 8))
    volume.write(volume.box, classes)
    run = configured(folder, SMALL)
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    return run


def configured(folder: Path, small: dict[str, Any] | None) -> Run:
    return make_run(
        folder / "run",
        segment={"thresholds": THRESHOLDS, "small_segments": small},
        agglomerate={"never_join": {"path": str(folder / "classes.zarr")}},
    )


def by_definition(run: Run, threshold: float) -> dict[int, int]:
    """The segment of each fragment, joined edge after edge from the rows of the graph."""
    with open_rag(run.config.rag, run.directory) as store:
        nodes, edges = store.read_nodes(), store.read_edges()
    size = dict(zip(nodes.id.tolist(), nodes.size.tolist(), strict=True))
    graph = nx.Graph()
    graph.add_nodes_from(size)
    rows = sorted(
        zip(edges.score.tolist(), (-edges.mean_affinity).tolist(), edges.u.tolist(), edges.v.tolist(), strict=True)
    )
    for score, _, u, v in rows:
        voxels = [sum(size[node] for node in nx.node_connected_component(graph, end)) for end in (u, v)]
        if score <= threshold or (score <= SMALL["threshold"] and min(voxels) < SMALL["below"]):
            graph.add_edge(u, v)
    return {node: min(together) for together in nx.connected_components(graph) for node in together}


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_segments_are_those_of_the_rule_in_volumes_viewer_sweep_and_exports(
    threshold: float, run: Run, tmp_path: Path
) -> None:
    fragments, segments = stored(run, "fragments"), stored(run, f"segmentation/{threshold:.2f}")
    expected = by_definition(run, threshold) | {0: 0}
    np.testing.assert_array_equal(segments, np.vectorize(expected.__getitem__, otypes=[np.uint64])(fragments))
    shown = dict(Joins(run).table(threshold).tolist())
    assert shown == {own: segment for own, segment in expected.items() if own != segment}
    labels = np.indices(fragments.shape)[1] // 10 + 1
    swept = sweep_thresholds(
        contingency_table(fragments, labels),
        scored_edges(run).pairs,
        scored_edges(run).score,
        [threshold],
        small=small_segments(run, scored_edges(run)),
    )
    assert swept[threshold] == scores_of_table(contingency_table(segments, labels))
    assert run_stages(run, export_stages(run, ExportOptions("webknossos", str(tmp_path), threshold)), False)
    with h5py.File(tmp_path / "fragments" / "agglomerates" / f"agglomerate_view_{threshold}.hdf5") as file:
        arrays = {name: dataset[:] for name, dataset in file.items()}
    assert_connected(arrays, expected)


def assert_connected(arrays: dict[str, np.ndarray], expected: dict[int, int]) -> None:
    """Every agglomerate of WEBKNOSSOS hangs together by its edges, and is a segment."""
    for number in range(1, len(arrays["segment_ids"])):
        begin, end = arrays["agglomerate_to_segments_offsets"][number : number + 2].tolist()
        members = arrays["fragment_ids"][arrays["agglomerate_to_segments"][begin:end]].tolist()
        assert {expected[member] for member in members} == {int(arrays["segment_ids"][number])}
        first, last = arrays["agglomerate_to_edges_offsets"][number : number + 2].tolist()
        tree = nx.Graph(arrays["agglomerate_to_edges"][first:last].tolist())
        tree.add_nodes_from(range(len(members)))
        assert nx.is_connected(tree)


def test_more_is_joined_than_without_but_never_two_classes(run: Run) -> None:
    with open_rag(run.config.rag, run.directory) as store:
        nodes = store.read_nodes()
    classes = (np.indices(RAW)[2] > 20)[1:, 2:, 3:]
    fragments = stored(run, "fragments")
    for threshold in THRESHOLDS:
        segments = stored(run, f"segmentation/{threshold:.2f}")
        edges = scored_edges(run)
        plain = nx.Graph(edges.pairs[edges.score <= threshold].tolist())
        plain.add_nodes_from(nodes.id.tolist())
        assert len(np.unique(segments[segments > 0])) < nx.number_connected_components(plain)
        shares = {own: classes[fragments == own].mean() > 0.5 for own in nodes.id.tolist()}
        pairs = {
            (int(s), shares[int(f)]) for f, s in zip(fragments[fragments > 0], segments[fragments > 0], strict=True)
        }
        assert len(pairs) == len({segment for segment, _ in pairs})


def test_a_change_makes_segmentations_stale_and_nothing_else(run: Run) -> None:
    for small in (None, {**SMALL, "below": 20}, {**SMALL, "threshold": 0.8}):
        changed = configured(run.directory.parent, small)
        stages = [*chained_stages(changed), SegmentTask(changed, 0.3)]
        assert [stage.name for stage in stages if progress_of(stage) is Progress.STALE] == ["segment_0.30"]
