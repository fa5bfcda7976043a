"""Damage of every kind is found, named, and made again: it and what was made from it, and nothing else."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_files import shard_of
from voronoi_run import assert_same, everything, make_run, store_affinities

from pipeline.commands import audit as audit_command
from pipeline.engine.audit.arrays import Damage, StageFindings
from pipeline.engine.audit.requeue import blocks_to_redo, requeue
from pipeline.engine.blocks.stage import BlockTask
from pipeline.engine.tracking.markers import marked_blocks
from pipeline.errors import UserError
from pipeline.evaluation.runs import written_segmentations
from pipeline.rag import EdgeTable, NodeTable, open_rag
from pipeline.run import Run, read_json
from pipeline.stages.auditing import audit, require_chunks
from pipeline.stages.by_script import agglomerate, extract_fragments, segment
from pipeline.stages.graph_rows import block_checksums
from pipeline.stages.region_graph import RagTask
from pipeline.stages.segment import SegmentTask, lut_path

Rows = tuple[NodeTable, EdgeTable]
SECTIONS = {
    "fragments": {"context": [1, 6, 6], "seed_distance": 3, "boundary_threshold": 0.7},
    "segment": {"thresholds": [0.6]},
}
VICTIM = (0, 1, 1)
VICTIM_INDEX = 4


def post_process(run: Run) -> None:
    assert extract_fragments(run)
    assert agglomerate(run)
    assert segment(run)


def finished_run(directory: Path, method: str) -> Run:
    run = make_run(directory, agglomerate={"method": method, "context": [1, 6, 6]}, **SECTIONS)
    store_affinities(run)
    post_process(run)
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished_run(tmp_path_factory.mktemp("finished"), "global")


def copy_of(run: Run, directory: Path) -> Run:
    shutil.copytree(run.directory, directory, dirs_exist_ok=True)
    return Run(run.config.model_copy(update={"run_directory": str(directory)}))


def found_damage(findings: list[StageFindings]) -> dict[tuple[str, Damage], int]:
    return {(f.stage.stage, kind): f.count(kind) for f in findings for kind in Damage if f.count(kind)}


def chunk_of(run: Run, dataset: str) -> Path:
    return shard_of(run, dataset, *VICTIM)


def lose(run: Run) -> None:
    chunk_of(run, "fragments").unlink()


def truncate(run: Run) -> None:
    chunk = chunk_of(run, "fragments")
    chunk.write_bytes(chunk.read_bytes()[:-7])


def swap(run: Run) -> None:
    shutil.copy(shard_of(run, "fragments", 0, 1, 0), chunk_of(run, "fragments"))


def forget_checksum(run: Run) -> None:
    (path,) = (run.tracking / "fragments").glob("*/records")
    content = bytearray(path.read_bytes())
    content[VICTIM_INDEX * 24 + 3] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lose, Damage.MISSING),
        (truncate, Damage.UNREADABLE),
        (swap, Damage.CHANGED),
        (forget_checksum, Damage.UNRECORDED),
    ],
)
def test_damaged_fragments_are_found_and_made_again(
    tmp_path: Path, finished: Run, damage: Callable[[Run], None], kind: Damage
) -> None:
    run = copy_of(finished, tmp_path)
    damage(run)
    findings = audit(run)
    assert found_damage(findings) == {("fragments", kind): 1}
    redo = {found.stage.stage: requeue_of(found, findings) for found in findings}
    assert redo["predict"] == 0
    assert redo["fragments"] == 1
    assert redo["rag"] == 8, "it, and the neighbours on the high sides, which read one voxel of it"
    assert redo["segment"] == 1
    requeue(findings)
    post_process(run)
    stages = read_json(run.summary)["stages"]
    assert {name: stages[name]["blocks_done"] for name in ("fragments", "rag", "segment")} == {
        "fragments": 1,
        "rag": 8,
        "segment": 1,
    }
    assert not found_damage(audit(run))
    assert_same(everything(run), everything(finished))


def requeue_of(found: StageFindings, findings: list[StageFindings]) -> int:
    blocks = blocks_to_redo(findings).get(found.stage.name)
    return 0 if blocks is None else int(blocks.sum())


def without_a_node(nodes: NodeTable, edges: EdgeTable) -> Rows:
    return nodes.select(nodes.id != edges.v.max()), edges


def with_a_node_too_many(nodes: NodeTable, edges: EdgeTable) -> Rows:
    first = nodes.select(np.arange(1))
    return NodeTable.concatenate([nodes, replace(first, id=first.id + np.uint64(900))]), edges


def with_an_edge_to_nowhere(nodes: NodeTable, edges: EdgeTable) -> Rows:
    return nodes, replace(edges, u=np.where(edges.v == edges.v.max(), edges.u + np.uint64(900), edges.u))


def with_other_affinities(nodes: NodeTable, edges: EdgeTable) -> Rows:
    return nodes, replace(edges, affinity_sum=edges.affinity_sum + 1)


def without_scores(nodes: NodeTable, edges: EdgeTable) -> Rows:
    return nodes, replace(edges, score=np.full(len(edges), np.nan))


def damage_graph(run: Run, block: int, damage: Callable[[NodeTable, EdgeTable], Rows]) -> None:
    """Change the rows of a block behind the back of the engine."""
    with open_rag(run.config.rag, run.directory) as store:
        before = next(store._read_nodes([block])), next(store._read_edges([block]))
        store.write_block(block, *damage(*before))


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (without_a_node, Damage.VOXELS_WITHOUT_NODES),
        (with_a_node_too_many, Damage.NODES_WITHOUT_VOXELS),
        (with_an_edge_to_nowhere, Damage.EDGES_WITHOUT_NODES),
        (with_other_affinities, Damage.CHANGED),
    ],
)
def test_damaged_rows_of_the_graph_are_found_and_made_again(
    tmp_path: Path, finished: Run, damage: Callable[[NodeTable, EdgeTable], Rows], kind: Damage
) -> None:
    run = copy_of(finished, tmp_path)
    damage_graph(run, 4, damage)
    findings = audit(run)
    assert ("rag", kind) in found_damage(findings)
    assert requeue(findings)["rag"].sum() == 1 or kind is Damage.VOXELS_WITHOUT_NODES
    post_process(run)
    assert not found_damage(audit(run))
    assert_same(everything(run), everything(finished))


def test_contacts_that_were_counted_wrong_are_found_and_counted_again(tmp_path: Path, finished: Run) -> None:
    """Checksums cannot tell: what is recorded is what was written. A third of a graph was, by mixed up machine code."""
    run = copy_of(finished, tmp_path)
    with open_rag(run.config.rag, run.directory) as store:
        nodes, edges = next(store._read_nodes([4])), next(store._read_edges([4]))
        edges = replace(edges, count=edges.count + (np.arange(len(edges)) == 2))
        store.write_block(4, nodes, edges)
        checksum, _ = block_checksums(nodes, edges)
        RagTask(run).records.write(4, checksum, int(nodes.size.sum()))
    findings = audit(run)
    assert found_damage(findings) == {("rag", Damage.MISCOUNTED): 1}
    assert requeue(findings)["rag"].ravel().tolist() == [index == 4 for index in range(len(RagTask(run).grid))]
    post_process(run)
    assert not found_damage(audit(run))
    assert_same(everything(run), everything(finished))


def test_lost_scores_of_all_edges_are_found_and_made_again(tmp_path: Path, finished: Run) -> None:
    damage_scores_and_mend(copy_of(finished, tmp_path), finished)


def test_lost_scores_of_a_block_are_found_and_made_again(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "waterz", "waterz")
    damage_scores_and_mend(copy_of(run, tmp_path / "copy"), run)


def damage_scores_and_mend(run: Run, sound: Run) -> None:
    assert all(found.sound for found in audit(run))
    damage_graph(run, 4, without_scores)
    findings = audit(run)
    assert [found.stage.stage for found in findings if not found.sound] == ["agglomerate"]
    requeue(findings)
    post_process(run)
    assert all(found.sound for found in audit(run))
    assert_same(everything(run), everything(sound))


def test_a_damaged_lookup_table_is_made_again_and_no_block_is_relabelled(tmp_path: Path, finished: Run) -> None:
    run = copy_of(finished, tmp_path)
    path = lut_path(run, 0.6)
    table = np.load(path)
    table[0, 1] += 1
    np.save(path, table)
    requeue(audit(run))
    post_process(run)
    assert read_json(run.summary)["stages"]["segment"]["blocks_done"] == 0
    assert_same(everything(run), everything(finished))


def test_zeros_from_an_input_that_is_none_are_computed_again_and_believed_then(tmp_path: Path, finished: Run) -> None:
    run = copy_of(finished, tmp_path)
    task = SegmentTask(run, 0.6)
    block = task.grid.block(VICTIM_INDEX)
    output = task.open_output()
    output.write(block, np.zeros(block.box.shape, np.uint64))
    findings = audit(run)
    assert found_damage(findings) == {("segment", Damage.ZERO): 1}
    output.write(block, np.zeros(block.box.shape, np.uint64))
    assert not found_damage(audit(run))


def test_what_is_not_done_yet_is_no_damage(tmp_path: Path) -> None:
    run = make_run(tmp_path, **SECTIONS)
    with pytest.raises(UserError, match=r"nothing is computed yet; run workflows/02_predict_blockwise\.py"):
        audit(run)
    store_affinities(run)
    assert all(found.sound for found in audit(run))


def test_markers_taken_back_are_those_named(tmp_path: Path, finished: Run) -> None:
    run = copy_of(finished, tmp_path)
    lose(run)
    findings = audit(run)
    redo = requeue(findings)
    for found in findings[1:]:
        if isinstance(found.stage, BlockTask):
            np.testing.assert_array_equal(marked_blocks(found.stage), ~redo[found.stage.name])


def test_the_commands_that_make_it_again_are_named(
    tmp_path: Path, finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(finished, tmp_path)
    lose(run)
    assert audit_command.work(run, argparse.Namespace(requeue=True, dry_run=False)) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("next: ")
    scripts = [Path(command.split()[-2]).name for command in last.removeprefix("next: ").split(" && ")]
    assert scripts == ["03_extract_fragments.py", "04_agglomerate.py", "05_segment.py"]
    post_process(run)
    assert_same(everything(finished), everything(run))


def test_scores_are_refused_when_a_chunk_is_lost(tmp_path: Path, finished: Run) -> None:
    run = copy_of(finished, tmp_path)
    require_chunks(run)
    lose(run)
    with pytest.raises(UserError, match=r"shard c/0/1/1 is missing; python workflows/audit\.py"):
        require_chunks(run)


def test_a_damaged_shard_that_is_scored_or_shown_says_what_to_run(tmp_path: Path, finished: Run) -> None:
    run = copy_of(finished, tmp_path)
    for dataset in ("fragments", "segmentation/0.60"):
        chunk = chunk_of(run, dataset)
        chunk.write_bytes(chunk.read_bytes()[:-7])
        volume = run.open_computed(dataset)
        with pytest.raises(UserError, match=r"truncated or damaged.*; python workflows/audit\.py .* --requeue has it"):
            volume.read(volume.box)
    segmentation = written_segmentations(run)[0.6]
    with pytest.raises(UserError, match=r"audit\.py .* --requeue has it made again"):
        segmentation.read(segmentation.box)


def test_the_script_prints_a_table_and_its_exit_status_tells(
    tmp_path: Path, finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(finished, tmp_path)

    def run_audit(requeue: bool = False, dry_run: bool = False) -> tuple[int, str]:
        status = audit_command.work(run, argparse.Namespace(requeue=requeue, dry_run=dry_run))
        return status, capsys.readouterr().out

    status, told = run_audit()
    assert status == 0
    assert "sound: all of" in told
    chunk_of(run, "segmentation/0.60").unlink()
    for dry_run in (True, False):
        status, told = run_audit(requeue=True, dry_run=dry_run)
        assert status == 1
        assert "missing" in told.splitlines()[0]
        assert "damaged: 1 block;" in told
        assert "1 block of segment_0.60" in told
    assert segment(run)
    assert_same(everything(run), everything(finished))
