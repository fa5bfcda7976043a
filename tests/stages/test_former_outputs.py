"""A config that changes between runs: what was made of former fragments is neither scored nor shown with new ones."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from voronoi_run import make_run, store_affinities, voronoi_cells

from pipeline.commands.evaluate import tell_unwritten
from pipeline.engine.tracking.lineage import present_segmentations
from pipeline.errors import UserError
from pipeline.evaluation import check_run, evaluate
from pipeline.run import Run
from pipeline.stages.by_script import agglomerate, extract_fragments, run_chain, segment
from pipeline.viewer.layers import existing_layers, shown_threshold
from pipeline.volumes import create_volume


def labelled_run(directory: Path) -> Run:
    """A run with segmentations at 0.30 and 0.60, scored at 0.50 besides."""
    run = make_run(directory, evaluate={"minimum_size": 1, "sweep": [0.5]})
    raw = run.open_raw("a")
    labels = np.zeros(raw.shape, np.uint64)
    inside = labels[1:, 2:, 3:]
    inside[:] = voronoi_cells(inside.shape) // 2 + 1
    volume = create_volume(run.volume, "labels", labels.shape, "uint64", voxel_size=raw.voxel_size, chunks=(4, 16, 16))
    volume.write(volume.box, labels)
    store_affinities(run)
    assert run_chain(run) and segment(run)
    return run


def changed(run: Run) -> Run:
    """The same directory with other fragments, and one segmentation at another threshold."""
    fragments = {"seed_distance": 5}
    sections = {"evaluate": {"minimum_size": 1, "sweep": [0.5]}, "segment": {"thresholds": [0.4]}}
    return make_run(run.directory, fragments=fragments, **sections)


def test_fragments_are_not_scored_with_the_graph_of_former_ones(tmp_path: Path) -> None:
    run = changed(labelled_run(tmp_path))
    assert list(evaluate(run)["scores"]) == ["0.30", "0.50", "0.60"], "nothing was computed since the config changed"
    assert extract_fragments(run, overwrite=True)
    for score in (evaluate, check_run):
        with pytest.raises(UserError, match=r"fragments was computed anew since; run .*agglomerate.* with --overwrite"):
            score(run)
    assert agglomerate(run, overwrite=True)
    evaluate(run)


def test_segmentations_of_a_former_graph_are_told_and_not_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = changed(labelled_run(tmp_path))
    assert run_chain(run, overwrite=True) and segment(run, overwrite=True)
    assert run.segmentation_names() == ["0.30", "0.40", "0.60"]
    with caplog.at_level(logging.WARNING):
        assert list(evaluate(run)["scores"]) == ["0.40", "0.50"]
    assert "segmentation/0.30 is not scored" in caplog.text
    assert present_segmentations(run) == ["0.40"]
    assert shown_threshold(run) == "0.40"
    assert [layer.name for layer in existing_layers(run) if layer.name.startswith("seg")] == ["segmentation 0.40"]
    tell_unwritten(run, 0.6)
    assert capsys.readouterr().out.rstrip().endswith("--overwrite"), "it is there, so it has to be made again"


def test_the_next_command_after_a_stage_was_redone_redoes_what_follows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = changed(labelled_run(tmp_path))
    with caplog.at_level(logging.INFO):
        assert extract_fragments(run, overwrite=True)
    assert caplog.text.rstrip().endswith("--overwrite")
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert agglomerate(run, overwrite=True) and segment(run, overwrite=True)
    assert caplog.text.rstrip().endswith("config.json"), "scoring has nothing to redo"
