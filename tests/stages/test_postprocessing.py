"""From affinities to a segmentation: what blocks compute adds up to what the whole volume gives."""

from __future__ import annotations

from pathlib import Path

import cc3d
import numpy as np
import pytest
from run_files import shard_of
from voronoi_run import make_run, store_affinities, stored

from pipeline import segmentations
from pipeline.config import NEAREST_NEIGHBOURS, FragmentsConfig
from pipeline.engine.blocks.grid import BlockGrid
from pipeline.engine.tracking.progress import Progress, progress_of
from pipeline.errors import UserError
from pipeline.rag import open_rag
from pipeline.run import Run
from pipeline.segmentation import (
    agglomerate_global,
    fragment_statistics,
    region_graph_statistics,
    relabel,
    waterz_edge_scores,
)
from pipeline.stages.by_script import agglomerate, extract_fragments, segment
from pipeline.stages.fragments import determining_settings, number_pieces
from pipeline.stages.segment import lut_path, lut_slice, written_segmentations

BLOCK_SIZES = [(4, 16, 16), (3, 40, 7), (8, 40, 35), (7, 13, 17)]  # (8, 40, 35) is the whole region; 8 = 7 + 1


def post_process(directory: Path, **sections: object) -> tuple[Run, np.ndarray]:
    run = make_run(directory, **sections)
    affinities = store_affinities(run)
    assert extract_fragments(run)
    assert agglomerate(run)
    assert segment(run)
    return run, affinities


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_graph_and_segmentation_equal_those_of_the_whole_volume(
    tmp_path: Path, block_size: tuple[int, int, int]
) -> None:
    run, affinities = post_process(tmp_path, predict={"block_size": list(block_size)})
    fragments = stored(run, "fragments")
    assert len(np.unique(fragments)) > len(BlockGrid.of_run(run)) + 1
    with open_rag(run.config.rag, run.directory) as store:
        nodes, edges = store.read_nodes(), store.read_edges()
    graph = region_graph_statistics(affinities, fragments, NEAREST_NEIGHBOURS)
    np.testing.assert_array_equal(edges.pairs, graph.edges)
    np.testing.assert_array_equal(edges.count, graph.count)
    np.testing.assert_array_equal(edges.affinity_sum, graph.affinity_sum)
    statistics = fragment_statistics(fragments)
    for name in ("id", "size", "begin", "end"):
        np.testing.assert_array_equal(getattr(nodes, name), getattr(statistics, name))
    centre = (statistics.centre + 0.5 + np.array([1, 2, 3])) * np.array([40, 8, 8])
    np.testing.assert_allclose(nodes.centre, centre, rtol=1e-6)
    luts = agglomerate_global(graph.edges, graph.mean, graph.count, (0.3, 0.6), nodes.id)
    for threshold, lut in luts.items():
        np.testing.assert_array_equal(np.load(lut_path(run, threshold)), lut)
        expected = relabel(fragments, lut[:, 0], lut[:, 1])
        np.testing.assert_array_equal(stored(run, f"segmentation/{threshold:.2f}"), expected)
    assert len(np.unique(luts[0.6][:, 1])) < len(np.unique(luts[0.3][:, 1])) < len(nodes)


@pytest.mark.parametrize("in_plane", [False, True])
def test_fragments_are_connected_and_numbered_by_their_block(tmp_path: Path, in_plane: bool) -> None:
    run = make_run(tmp_path, fragments={"in_plane": in_plane, "context": [1, 6, 6]})
    store_affinities(run)
    assert extract_fragments(run)
    fragments = stored(run, "fragments")
    grid = BlockGrid.of_run(run)
    for block in grid:
        ids = np.unique(fragments[block.box.slices])
        ids = ids[ids > 0]
        first, end = grid.fragment_ids(block)
        np.testing.assert_array_equal(ids, np.arange(first, first + len(ids)))
        assert first + len(ids) <= end
    pieces = cc3d.connected_components(fragments, connectivity=6)
    assert pieces.max() == len(np.unique(fragments[fragments > 0]))
    if in_plane:
        assert all(len(np.unique(np.nonzero(fragments == i)[0])) == 1 for i in np.unique(fragments)[1:20])


def test_pieces_of_a_cut_fragment_get_ids_of_their_own() -> None:
    fragments = np.array([[[7, 0, 7, 3, 3]]], dtype=np.uint64)
    np.testing.assert_array_equal(number_pieces(fragments, 101), [[[101, 0, 102, 103, 103]]])


def test_waterz_with_context_over_everything_equals_waterz_on_the_whole_volume(tmp_path: Path) -> None:
    run, affinities = post_process(tmp_path, agglomerate={"method": "waterz", "context": [8, 40, 40]})
    pairs, scores = waterz_edge_scores(affinities, stored(run, "fragments"))
    with open_rag(run.config.rag, run.directory) as store:
        edges = store.read_edges()
    np.testing.assert_array_equal(edges.pairs, pairs)
    np.testing.assert_array_equal(edges.score, scores)


def test_waterz_scores_every_edge_even_without_context(tmp_path: Path) -> None:
    run, _ = post_process(tmp_path, agglomerate={"method": "waterz", "context": [0, 0, 0]})
    with open_rag(run.config.rag, run.directory) as store:
        assert not np.isnan(store.read_edges().score).any()


def test_small_segments_and_expensive_merges_are_left_out(tmp_path: Path) -> None:
    run, _ = post_process(tmp_path, segment={"thresholds": [0.6], "minimum_size": 400})
    sizes = np.unique(stored(run, "segmentation/0.60"), return_counts=True)
    assert dict(zip(*map(list, sizes), strict=True)).pop(0) > 0
    assert sizes[1][1:].min() >= 400
    apart, _ = post_process(tmp_path / "apart", agglomerate={"maximum_score": 0.0}, segment={"thresholds": [0.6]})
    np.testing.assert_array_equal(stored(apart, "segmentation/0.60"), stored(apart, "fragments"))


def test_a_threshold_of_three_decimals_is_called_by_all_of_them(tmp_path: Path) -> None:
    """Called 0.33, it was taken for one at 0.33: no segmentation of this run, and never audited."""
    run, _ = post_process(tmp_path, segment={"thresholds": [0.325, 0.33]})
    assert run.segmentation_names() == ["0.325", "0.33"]
    assert list(segmentations(run)) == [0.325, 0.33]
    assert all(progress_of(task) is Progress.DONE for task in written_segmentations(run))


def test_a_block_reads_only_its_rows_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "lut.npy"
    np.save(path, np.stack([np.arange(5, 95, 3), np.arange(30)], axis=1).astype(np.uint64))
    rows = lut_slice(np.load(path, mmap_mode="r"), 11, 21)
    np.testing.assert_array_equal(rows, [[11, 2], [14, 3], [17, 4], [20, 5]])
    assert len(lut_slice(np.load(path, mmap_mode="r"), 100, 200)) == 0


def test_a_lost_lookup_table_is_made_again(tmp_path: Path) -> None:
    run, _ = post_process(tmp_path)
    before = np.load(lut_path(run, 0.3))
    lut_path(run, 0.3).unlink()
    assert segment(run)
    np.testing.assert_array_equal(np.load(lut_path(run, 0.3)), before)


def test_a_further_threshold_leaves_the_others_alone(tmp_path: Path) -> None:
    run, _ = post_process(tmp_path)
    chunk = shard_of(run, "segmentation/0.30", 0, 0, 0)
    written = chunk.stat().st_mtime_ns
    assert segment(make_run(tmp_path, segment={"thresholds": [0.3, 0.45]}))
    assert shard_of(run, "segmentation/0.45", 0, 0, 0).exists()
    assert chunk.stat().st_mtime_ns == written


def test_thresholds_that_share_a_name_are_refused(tmp_path: Path) -> None:
    run, _ = post_process(tmp_path)
    with pytest.raises(UserError, match=r"segment\.thresholds"):
        segment(make_run(tmp_path, segment={"thresholds": [0.3, 0.3000000001]}))
    assert segment(run)


def test_another_way_to_agglomerate_redoes_only_what_follows(tmp_path: Path) -> None:
    run, _ = post_process(tmp_path)
    chunk = shard_of(run, "fragments", 0, 0, 0)
    written = chunk.stat().st_mtime_ns
    changed = make_run(tmp_path, agglomerate={"method": "waterz", "context": [1, 6, 6]})
    with pytest.raises(UserError, match=r"stale: agglomerate \(changed: agglomerate\..*redoes agglomerate and nothing"):
        agglomerate(changed)
    assert segment(run), "nothing was lost"
    assert agglomerate(changed, overwrite=True)
    with pytest.raises(UserError, match=r"segment_0.30 \(follows agglomerate\)"):
        segment(changed)
    assert segment(changed, overwrite=True)
    assert chunk.stat().st_mtime_ns == written


def test_other_fragments_make_the_graph_stale(tmp_path: Path) -> None:
    post_process(tmp_path)
    changed = make_run(tmp_path, fragments={"seed_distance": 9, "context": [1, 6, 6]})
    with pytest.raises(UserError, match="fragments, which is stale"):
        agglomerate(changed)
    assert extract_fragments(changed, overwrite=True)
    with pytest.raises(UserError, match=r"rag \(follows fragments\); agglomerate \(follows rag\)"):
        agglomerate(changed)
    assert agglomerate(changed, overwrite=True)


def test_fragments_made_before_the_keys_of_other_methods_existed_stay_valid() -> None:
    first = {
        "method",
        "context",
        "in_plane",
        "boundary_threshold",
        "seed_smoothing",
        "seed_distance",
        "minimum_affinity",
        "minimum_size",
    }
    voxels = FragmentsConfig(face_threshold=0, attraction_bias=-0.5)
    assert set(determining_settings(voxels)) == first
    assert set(determining_settings(FragmentsConfig())) == {*first, "face_threshold"}
    background = voxels.model_copy(update={"background_threshold": 0.5})
    assert set(determining_settings(background)) == {*first, "background_threshold"}
    mutex = determining_settings(FragmentsConfig(method="mutex_watershed"))
    assert set(mutex) == {*first, "attraction_bias", "repulsion_bias"}
