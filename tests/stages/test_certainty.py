"""`certainty`: one voxel per block, made from the graph alone, the same however it ran, tracked like every stage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
from run_files import shard_of
from voronoi_run import make_run, store_affinities, stored

from pipeline.engine.audit.arrays import Damage
from pipeline.engine.audit.requeue import requeue
from pipeline.engine.blocks.grid import BlockGrid
from pipeline.engine.chain import run_stages
from pipeline.engine.tracking.progress import Progress, begin, progress_of, write_record
from pipeline.errors import UserError
from pipeline.rag import EdgeTable, open_rag
from pipeline.run import CERTAINTY, Run
from pipeline.segmentation import certainty_of
from pipeline.stages.auditing import audit
from pipeline.stages.by_script import known_stages, run_chain, segment
from pipeline.stages.certainty import SIDE, CertaintyTask, certainty_stages
from pipeline.stages.segment import lut_path
from pipeline.volumes import open_volume, volume_exists

SMALL = {"block_size": [8, 4, 35], "tile_size": [8, 40, 35]}
"""More blocks along y than one file of `certainty` has voxels."""


def make(directory: Path, **sections: Any) -> Run:
    run = make_run(directory, **{"segment": {"thresholds": [0.6]}, "predict": SMALL, **sections})
    store_affinities(run)
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make(tmp_path_factory.mktemp("finished"))
    assert run_chain(run) and segment(run)
    return run


def copied(finished: Run, directory: Path) -> Run:
    """A finished run that a test may spoil."""
    shutil.copytree(finished.directory, directory, dirs_exist_ok=True)
    return make_run(directory, segment={"thresholds": [0.6]}, predict=SMALL)


def by_hand(run: Run, threshold: float) -> np.ndarray:
    """The certainty of every block from voxels and the whole graph."""
    fragments, grid = stored(run, "fragments"), BlockGrid.of_run(run)
    with open_rag(run.config.rag, run.directory) as store:
        edges = store.read_edges()
    result = np.zeros(grid.shape, np.float32)
    for block in grid:
        ids, sizes = np.unique(fragments[block.box.slices], return_counts=True)
        ids, sizes = ids[ids > 0], sizes[ids > 0]
        inside = edges.select(np.isin(edges.u, ids) & np.isin(edges.v, ids))
        value = certainty_of(sizes, np.searchsorted(ids, inside.pairs), inside.score, threshold)
        result[np.unravel_index(block.index, tuple(grid.shape))] = value
    return result


def test_every_block_has_the_certainty_of_its_own_fragments(finished: Run) -> None:
    found = stored(finished, CERTAINTY)
    assert found.dtype == np.float32 and found.shape == tuple(BlockGrid.of_run(finished).shape)
    assert max(found.shape) > SIDE
    np.testing.assert_array_equal(found, by_hand(finished, 0.6))
    assert len(np.unique(found)) > 5 and found.min() >= 0 and found.max() <= 1


def test_it_is_an_image_whose_voxels_are_the_blocks(finished: Run) -> None:
    volume = open_volume(finished.volume, CERTAINTY)
    assert tuple(volume.voxel_size) == (8 * 40, 4 * 8, 35 * 8)
    assert tuple(volume.offset) == (1 * 40, 2 * 8, 3 * 8)
    assert volume.array.attrs["threshold"] == 0.6
    yaozarrs.validate_zarr_store(str(finished.directory / "volume.zarr" / CERTAINTY))


@pytest.mark.parametrize(
    "sections",
    [
        {"rag": {"url": "files:///rag"}, "cluster": {"executor": "local", "workers": 2}},
        {"storage": {"format": 2}},
    ],
    ids=["workers, files", "zarr 2"],
)
def test_workers_stores_and_formats_give_the_same(tmp_path: Path, finished: Run, sections: dict[str, Any]) -> None:
    run = make(tmp_path, **{**sections, "cluster": {"executor": "serial"}})
    assert run_chain(run)
    assert segment(make_run(tmp_path, **{"segment": {"thresholds": [0.6]}, "predict": SMALL, **sections}))
    np.testing.assert_array_equal(stored(run, CERTAINTY), stored(finished, CERTAINTY))


def test_regions_decide_nothing_where_the_largest_score_keeps_fragments_apart(tmp_path: Path) -> None:
    """A whole graph has scores above `maximum_score`, regions have 1 in their place."""
    found = {}
    for name, sections in (("whole", {}), ("regions", {"region_size": [8, 8, 35]})):
        run = make(tmp_path / name, agglomerate={"maximum_score": 0.6, **sections})
        assert run_chain(run) and segment(run)
        found[name] = stored(run, CERTAINTY)
    np.testing.assert_array_equal(found["whole"], found["regions"])


def test_half_done_it_goes_on_and_for_another_threshold_it_is_made_again(tmp_path: Path, finished: Run) -> None:
    run = make(tmp_path)
    assert run_chain(run)
    (task,) = certainty_stages(run, 0.6)
    assert isinstance(task, CertaintyTask)
    begin(task)
    with task.process() as process_block:
        process_block(task.grid.block(1))
    write_record(task, complete=False)
    assert progress_of(task) is Progress.STARTED
    assert segment(run)
    np.testing.assert_array_equal(stored(run, CERTAINTY), stored(finished, CERTAINTY))
    other = make_run(tmp_path, segment={"thresholds": [0.3]}, predict=SMALL)
    assert segment(other)
    np.testing.assert_array_equal(stored(other, CERTAINTY), by_hand(other, 0.3))


def test_damage_is_found_and_mended(tmp_path: Path, finished: Run) -> None:
    run = copied(finished, tmp_path)
    expected = stored(run, CERTAINTY)
    assert all(found.sound for found in audit(run))
    shard_of(run, CERTAINTY, 0, 0, 0).unlink()
    findings = audit(run)
    (found,) = [found for found in findings if found.stage.name == "certainty"]
    assert found.count(Damage.MISSING) == 1
    assert list(requeue(findings)) == ["certainty"]
    assert segment(run)
    np.testing.assert_array_equal(stored(run, CERTAINTY), expected)


def test_rows_that_were_changed_are_refused(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert run_chain(run)
    with open_rag(run.config.rag, run.directory) as store:
        store.write_scores(3, EdgeTable.empty())
    task = CertaintyTask(run, 0.6)
    begin(task)
    with (
        task.process() as process_block,
        pytest.raises(UserError, match=r"lost or changed rows of block 3 .*--requeue"),
    ):
        process_block(task.grid.block(0))


def test_other_scores_under_the_same_key_make_it_again(tmp_path: Path, finished: Run) -> None:
    run = copied(finished, tmp_path)
    (task,) = certainty_stages(run, 0.6)
    assert progress_of(task) is Progress.DONE
    records = run.tracking / "agglomerate" / task.upstream[0].key / "records"
    sound = records.read_bytes()
    records.write_bytes(b"\0" * len(sound))
    assert progress_of(task) is Progress.STARTED
    records.write_bytes(sound)
    assert progress_of(task) is Progress.DONE


def test_who_does_not_want_it_gets_none(tmp_path: Path) -> None:
    run = make(tmp_path, segment={"thresholds": [0.6], "certainty": False})
    assert run_chain(run) and segment(run)
    assert lut_path(run, 0.6).exists() and not volume_exists(run.volume, CERTAINTY)
    assert "certainty" not in [stage.name for stage in known_stages(run)]
    again = make_run(tmp_path, segment={"thresholds": [0.6]}, predict=SMALL)
    assert run_stages(again, certainty_stages(again, 0.6), False)
    assert "certainty" in [stage.name for stage in known_stages(again)]
