"""Affinities that were dropped are made again where they are needed, and nothing that is needed is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_files import shard_of
from temporary_run import BLOCKS, blocks_done, results, stored_affinities, temporary_run
from voronoi_run import assert_same, everything

from pipeline.engine.audit.arrays import Damage
from pipeline.engine.audit.requeue import requeue
from pipeline.engine.blocks.stage import BlockTask
from pipeline.engine.tracking import temporary
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.stages.auditing import audit
from pipeline.stages.by_script import (
    agglomerate,
    extract_fragments,
    predict,
    run_chain,
    segment,
)
from pipeline.viewer.layers import existing_layers
from pipeline.volumes import run_arrays, storage
from pipeline.volumes.locations import Location

ENDS = (0.0, 0.5, 1.0)
"""Shares of the files to be dropped after which the driver ends."""


def test_what_a_stale_stage_needs_is_made_again(tmp_path: Path, used: Run) -> None:
    changed = temporary_run(used.directory, seed_distance=2)
    with pytest.raises(UserError, match=r"stale: fragments \(changed: fragments.seed_distance\)"):
        extract_fragments(changed)
    assert blocks_done(used, "predict") == BLOCKS / 2
    assert extract_fragments(changed, overwrite=True)
    assert stored_affinities(changed) == BLOCKS
    assert agglomerate(changed, overwrite=True) and segment(changed, overwrite=True)
    assert stored_affinities(changed) == 0
    fresh = temporary_run(tmp_path / "fresh", "all", seed_distance=2)
    assert run_chain(fresh) and segment(fresh)
    assert_same(results(changed), results(fresh))


def test_the_audit_knows_what_was_dropped_and_mends_with_what_that_needs(kept: Run, used: Run) -> None:
    findings = audit(used)
    assert all(found.sound for found in findings)
    assert {found.stage.name: found.dropped for found in findings if found.dropped} == {"predict": BLOCKS // 2}
    shard_of(used, "fragments", 0, 1, 1).unlink()
    findings = audit(used)
    assert [found.stage.name for found in findings if found.count(Damage.MISSING)] == ["fragments"]
    requeue(findings)
    assert agglomerate(used) and segment(used)
    assert blocks_done(used, "fragments") == 1
    assert 0 < blocks_done(used, "predict") < BLOCKS / 4, "what the fragments and the graph around them read"
    assert all(found.sound for found in audit(used))
    assert_same(results(used), results(kept))


def test_affinities_that_are_lost_before_they_were_used_are_a_loss(tmp_path: Path) -> None:
    run = temporary_run(tmp_path)
    assert predict(run)
    shard_of(run, "affinities", 0, 1, 1).unlink()
    assert [found.stage.name for found in audit(run) if found.count(Damage.MISSING)] == ["predict"]


def test_who_keeps_them_after_all_gets_them_back(kept: Run, used: Run) -> None:
    assert "affinities" not in [layer.name for layer in existing_layers(used)]
    run = temporary_run(used.directory, "all")
    assert all(found.sound for found in audit(run))
    assert predict(run)
    assert_same(everything(run), everything(kept))
    assert "affinities" in [layer.name for layer in existing_layers(run)]
    assert not any(found.dropped for found in audit(run))


def test_a_checkpoint_that_is_gone_is_told_before_anything_is_made_stale(used: Run) -> None:
    for checkpoint in used.network_directory("student").glob("*.pt"):
        checkpoint.unlink()
    assert agglomerate(used) and segment(used)
    before = results(used)
    with pytest.raises(UserError, match="checkpoint"):
        agglomerate(temporary_run(used.directory, seed_distance=2), overwrite=True)
    assert_same(results(used), before)


def test_a_failing_block_keeps_what_it_needs(tmp_path: Path, kept: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what does not wait for it is done, in later portions too."""
    from pipeline.stages import fragments

    whole = fragments.fragment_block
    monkeypatch.setattr(fragments, "fragment_block", failing_at(whole, block=BLOCKS // 2))
    run = temporary_run(tmp_path)
    assert not agglomerate(run)
    assert 0 < stored_affinities(run) < BLOCKS
    assert blocks_done(run, "fragments") == BLOCKS - 1
    monkeypatch.setattr(fragments, "fragment_block", whole)
    assert agglomerate(run) and segment(run)
    assert blocks_done(run, "predict") == 0, "nothing that was needed had been dropped"
    assert stored_affinities(run) == 0
    assert_same(results(run), results(kept))


def failing_at(whole: Any, block: int) -> Any:
    """`fragment_block`, but for one block an error."""
    voxels = 1 * 20 * 20

    def broken(affinities: Any, box: Any, first_id: int, *rest: Any) -> Any:
        if first_id == block * voxels + 1:
            raise ValueError("as asked")
        return whole(affinities, box, first_id, *rest)

    return broken


def test_an_end_in_the_middle_of_dropping_loses_nothing(
    tmp_path: Path, kept: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first, in the middle, and after the last of the files, each time that some are dropped."""
    remove, times = storage.remove_files, Counter[str]()

    def broken_off(location: Location, names: Sequence[str]) -> None:
        times.update(["ends"])
        if times["ends"] <= len(ENDS):
            remove(location, names[: round(len(names) * ENDS[times["ends"] - 1])])
            raise KeyboardInterrupt
        remove(location, names)

    monkeypatch.setattr(run_arrays, "remove_files", broken_off)
    for _ in ENDS:
        with pytest.raises(KeyboardInterrupt):
            agglomerate(temporary_run(tmp_path))
    run = temporary_run(tmp_path)
    assert agglomerate(run) and segment(run)
    assert stored_affinities(run) == 0
    assert_same(results(run), results(kept))


def test_an_end_while_markers_are_taken_back_loses_nothing(
    tmp_path: Path, used: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(task: BlockTask, blocks: np.ndarray) -> None:
        task.records.take_back(blocks)
        raise KeyboardInterrupt

    changed = temporary_run(used.directory, seed_distance=2)
    with monkeypatch.context() as patch:
        patch.setattr(temporary, "unmark_blocks", broken_off)
        with pytest.raises(KeyboardInterrupt):
            agglomerate(changed, overwrite=True)
    assert agglomerate(changed, overwrite=True) and segment(changed, overwrite=True)
    fresh = temporary_run(tmp_path / "fresh", "all", seed_distance=2)
    assert run_chain(fresh) and segment(fresh)
    assert_same(results(changed), results(fresh))
