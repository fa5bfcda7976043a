"""Linkage by regions gives what linkage in memory gives, bit by bit, however it ran, whatever became of its files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_stores import STORES, Stores
from voronoi_run import assert_same, everything, make_run, store_affinities, stored

from pipeline.engine.audit.requeue import requeue
from pipeline.engine.blocks.grid import BlockGrid
from pipeline.engine.chain import run_stages
from pipeline.rag import open_rag
from pipeline.run import Run
from pipeline.segmentation.regional_linkage import LinkedRegion
from pipeline.stages import agglomerate as stages_agglomerate
from pipeline.stages import linkage
from pipeline.stages.agglomerate import agglomeration, scoring_stages
from pipeline.stages.auditing import audit
from pipeline.stages.by_script import agglomerate, extract_fragments, segment
from pipeline.stages.linkage import LinkageTask, levels_of
from pipeline.stages.merge_scores import MergeScoresTask
from pipeline.stages.region_files import region_file
from pipeline.stages.region_graph import RagTask
from pipeline.stages.windowed_linkage import BYTES_PER_EDGE, link_region_on_disk

REGIONS = [[4, 16, 16], [8, 16, 32], [4, 48, 16]]
"""Voxels of the first regions; the volume has 2 x 3 x 3 blocks of 4 x 16 x 16."""


@pytest.fixture(scope="module")
def fragments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with fragments, to be copied."""
    run = make_run(tmp_path_factory.mktemp("fragments"))
    store_affinities(run)
    assert extract_fragments(run)
    return run.directory


@pytest.fixture(scope="module")
def reference(fragments: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What linkage of the whole graph in memory gives."""
    return everything(linked(fragments, tmp_path_factory.mktemp("reference")))


def copied(fragments: Path, directory: Path, agglomeration: dict[str, Any], **sections: Any) -> Run:
    shutil.copytree(fragments, directory, dirs_exist_ok=True)
    return make_run(directory, agglomerate=agglomeration, **sections)


def linked(fragments: Path, directory: Path, **agglomeration: Any) -> Run:
    run = copied(fragments, directory, agglomeration)
    assert agglomerate(run) and segment(run)
    return run


@pytest.mark.parametrize("region_size", REGIONS)
def test_regions_give_what_the_whole_graph_gives(
    region_size: list[int], fragments: Path, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    assert_same(everything(linked(fragments, tmp_path, region_size=region_size)), reference)


@pytest.mark.parametrize("kind", STORES[1:])
def test_every_store_gives_the_same(
    kind: str, stores: Stores, fragments: Path, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run = copied(fragments, tmp_path, {"region_size": [8, 32, 32]}, rag={"url": stores.url(kind)})
    assert agglomerate(run) and segment(run)
    assert_same(everything(run), reference)


def test_any_number_of_workers_gives_the_same(
    fragments: Path, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    cluster, regions = {"executor": "local", "workers": 2}, {"region_size": [4, 48, 48]}
    run = copied(fragments, tmp_path, regions, cluster=cluster)
    assert agglomerate(run)
    assert agglomerate(run), "what is done stays done"
    assert segment(make_run(tmp_path, agglomerate=regions))
    assert_same(everything(run), reference)


def test_a_large_volume_of_one_region_is_linked_by_a_worker(
    fragments: Path, reference: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = copied(fragments, tmp_path, {})
    assert [stage.name for stage in scoring_stages(whole)] == ["agglomerate"]
    monkeypatch.setattr(stages_agglomerate, "DRIVER_VOXELS", BlockGrid.of_run(whole).box.size - 1)
    assert [stage.name for stage in scoring_stages(whole)] == ["linkage_0", "agglomerate"]
    run = linked(fragments, tmp_path)
    assert_same(everything(run), reference)
    region_file(LinkageTask(run, 0).scores, 7).unlink()
    assert [found.stage.name for found in audit(run) if not found.sound] == ["linkage_0"]
    requeue(audit(run))
    assert agglomerate(run) and segment(run)
    assert_same(everything(run), reference)


def test_the_plan_says_what_the_largest_region_needs(fragments: Path, tmp_path: Path) -> None:
    run = copied(fragments, tmp_path, {"region_size": [4, 16, 16]})
    (_, before), *_ = LinkageTask(run, 0).plan_details()
    assert before.startswith("2 in the largest region (about 0.0022 per voxel")
    assert agglomerate(run)
    largest = max(len(LinkageTask(run, 0).read(index).linked.target) for index in range(18))
    (_, counted), *_ = LinkageTask(run, 0).plan_details()
    assert (
        counted
        == f"{largest} in the largest region (as counted), {largest * 260 / 1e9:.2g} of 16 GB (agglomerate.memory)"
    )
    larger = make_run(tmp_path, agglomerate={"region_size": [8, 48, 48], "memory": largest * 260 / 1e9})
    (_, warned), *_ = LinkageTask(larger, 0).plan_details()
    assert warned.endswith("; linked from the disk, which is slower: agglomerate.region_size 4×16×16 would fit")
    least = make_run(tmp_path, agglomerate={"region_size": [8, 48, 48], "memory": 1e-6})
    (_, refused), *_ = LinkageTask(least, 0).plan_details()
    assert re.search(r"which is slower: not even a block \(4×16×16\) fits, which takes \S+ GB$", refused)


def test_what_was_linked_in_memory_stays_so_with_smaller_regions(fragments: Path, tmp_path: Path) -> None:
    whole = linked(fragments, tmp_path)
    smaller = make_run(tmp_path, agglomerate={"region_size": [4, 16, 16]})
    assert agglomeration(smaller).key == agglomeration(whole).key


def test_lost_and_damaged_files_are_found_and_made_again(
    fragments: Path, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run = linked(fragments, tmp_path, region_size=[4, 16, 16])
    top = LinkageTask(run, levels_of(run, LinkageTask(run, 0).chunk_grid) - 1)
    damaged = [region_file(LinkageTask(run, 0).files, 3), region_file(MergeScoresTask(run, 0).files, 5)]
    damaged[0].write_bytes(damaged[0].read_bytes()[:-9])
    data = bytearray(damaged[1].read_bytes())
    data[-7] ^= 1
    damaged[1].write_bytes(bytes(data))
    region_file(top.scores, 0).unlink()
    unsound = [found.stage.name for found in audit(run) if not found.sound]
    assert unsound == ["linkage_0", top.name, "merge_scores_0"]
    requeue(audit(run))
    assert agglomerate(run) and segment(run)
    assert all(found.sound for found in audit(run))
    assert_same(everything(run), reference)


def test_changed_rows_of_the_graph_are_not_linked(fragments: Path, tmp_path: Path) -> None:
    run = copied(fragments, tmp_path, {"region_size": [4, 16, 16]})
    assert run_stages(run, [RagTask(run)], overwrite=False)
    with open_rag(run.config.rag, run.directory) as store:
        (_, nodes, edges), *_ = store.read_block_rows([4])
        store.write_block(4, nodes, edges.select(slice(1, None)))
    assert not agglomerate(run)
    assert "lost or changed rows of block 4" in (tmp_path / "summary.json").read_text()


def test_clusters_that_do_not_fit_into_the_memory_are_told(fragments: Path, tmp_path: Path) -> None:
    run = copied(fragments, tmp_path, {"region_size": [4, 16, 16], "memory": 1e-7})
    assert not agglomerate(run)
    assert "clusters take" in (summary := (tmp_path / "summary.json").read_text()) and "agglomerate.memory" in summary


@pytest.mark.parametrize("region_size", [[4, 16, 16], [8, 32, 32], [8, 48, 48]])
def test_regions_that_do_not_fit_are_linked_from_the_disk_on_every_level(
    region_size: list[int],
    fragments: Path,
    reference: dict[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages_agglomerate, "DRIVER_VOXELS", 0)
    in_memory: list[int] = []
    monkeypatch.setattr(linkage, "link_region", lambda *arguments: in_memory.append(len(arguments[0])))
    monkeypatch.setattr(LinkageTask, "_fits", lambda task, rows: False)
    assert_same(everything(linked(fragments, tmp_path, region_size=region_size)), reference)
    assert not in_memory


def test_larger_regions_than_the_first_are_linked_from_the_disk_where_these_fit(
    fragments: Path, reference: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked_on_disk = []

    def noting(*arguments: Any) -> LinkedRegion:
        linked_on_disk.append(len(arguments[0]))
        return link_region_on_disk(*arguments)

    monkeypatch.setattr(linkage, "link_region_on_disk", noting)
    smallest = linked(fragments, tmp_path / "plenty", region_size=[4, 16, 16])
    largest = max(len(LinkageTask(smallest, 0).read(i).linked.target) for i in range(18))
    seen = max(len(LinkageTask(smallest, 0).read(i).linked.seen) for i in range(18))
    memory = BYTES_PER_EDGE * (largest + seen) / 1e9
    run = linked(fragments, tmp_path / "little", region_size=[4, 16, 16], memory=memory)
    assert linked_on_disk and max(linked_on_disk) > largest + seen
    assert_same(everything(run), reference)


def test_with_a_maximum_score_less_goes_up_and_segments_are_the_same(
    fragments: Path, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run = linked(fragments, tmp_path / "bounded", maximum_score=0.35, region_size=[4, 16, 16])
    scores = everything(run)["edges.score"]
    merged = reference["edges.score"] <= 0.35
    assert np.array_equal(scores[merged], reference["edges.score"][merged])
    assert (scores[~merged] > 0.35).all()
    whole = linked(fragments, tmp_path / "whole", maximum_score=0.35)
    for threshold in (0.3, 0.6):
        assert np.array_equal(
            stored(run, f"segmentation/{threshold:.2f}"), stored(whole, f"segmentation/{threshold:.2f}")
        )
    unbounded = copied(fragments, tmp_path / "unbounded", {"region_size": [4, 16, 16]})
    assert agglomerate(unbounded)
    assert _edges_at_the_top(run) < _edges_at_the_top(unbounded)


def _edges_at_the_top(run: Run) -> int:
    top = LinkageTask(run, levels_of(run, LinkageTask(run, 0).chunk_grid) - 1)
    return len(top.read(0).linked.target)
