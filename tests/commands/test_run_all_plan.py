"""What `run_all.py --dry-run` counts: everything that it would write, the segmentations included."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import pytest
from voronoi_run import make_run, store_affinities

from pipeline.api import agglomerate, extract_fragments, segment
from pipeline.commands import run_all
from pipeline.run import Run
from pipeline.stages.by_script import predict


def lines_of(run: Run, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    caplog.set_level(logging.INFO)
    run_all.plan(run, argparse.Namespace())
    return caplog.messages


def disk_line(lines: list[str]) -> str:
    (line,) = (line for line in lines if line.startswith("disk:"))
    return line


def test_segmentations_at_given_thresholds_are_planned_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, none = (
        lines_of(make_run(tmp_path / name, segment={"thresholds": thresholds}, pyramid={"smallest": 20}), caplog)
        for name, thresholds in (("one", [0.5]), ("best", "best"))
    )
    started = [line.partition(":")[0] for line in one]
    assert {"segment_0.50", "segmentation_0.50_s1", "certainty"} <= set(started)
    assert disk_line(one) != disk_line(none)
    assert not any(line.startswith("segment_") for line in none)
    assert "the segmentation comes on top: its threshold is chosen once the blocks are agglomerated" in none


def test_of_a_finished_run_nothing_is_left_to_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path)
    store_affinities(run)
    assert predict(run) and extract_fragments(run) and agglomerate(run) and segment(run)
    assert disk_line(lines_of(run, caplog)).startswith("disk: at most 0 bytes of arrays to write,")
