"""Sizes of segments as 05_segment.py notes them equal those of its voxels."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from voronoi_run import make_run, store_affinities, stored

from pipeline.evaluation import read_segment_sizes
from pipeline.evaluation.segment_sizes import SegmentSizes, of_little_use
from pipeline.stages.by_script import run_chain, segment
from pipeline.stages.segment import SegmentTask

BLOCKS = {"block_size": [8, 20, 35], "tile_size": [8, 40, 35]}


def sizes_of(*segments: tuple[int, int]) -> SegmentSizes:
    """Of segments with so many voxels and fragments, the largest first."""
    largest = [
        {"id": number, "voxels": voxels, "fragments": fragments, "begin": (0, 0, 0), "end": (1, 1, 1)}
        for number, (voxels, fragments) in enumerate(segments, 1)
    ]
    total = sum(voxels for voxels, _ in segments)
    return {"segments": len(segments), "voxels": total, "counts": [], "volumes": [], "largest": largest}  # type: ignore[typeddict-item]


def test_a_segmentation_that_tells_nothing_apart_is_called_so_with_what_to_change() -> None:
    told = of_little_use(sizes_of((960, 30), (40, 1)))
    assert told.startswith("96 % of the segmented voxels lie in one of 2 segments") and "segment.thresholds" in told
    told = of_little_use(sizes_of((960, 1)))
    assert "one of 1 segment, which is a single fragment" in told and "fragments.boundary_threshold" in told
    assert "there is no segment" in of_little_use(sizes_of()) and "train" in of_little_use(sizes_of())
    assert of_little_use(sizes_of((500, 30), (400, 2), (100, 1))) == ""


def test_the_stage_says_so_without_failing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And once more when it has nothing left to do; a good threshold beside it is not blamed."""
    run = make_run(tmp_path, segment={"thresholds": [0.3, 1.0], "certainty": False}, predict=BLOCKS)
    store_affinities(run)
    assert run_chain(run)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert segment(run)
        (line,) = caplog.messages
        assert line.startswith("segment_1.00: 100 % of the segmented voxels lie in one of 1 segment")


def test_sizes_are_those_of_the_voxels(tmp_path: Path) -> None:
    run = make_run(tmp_path, segment={"thresholds": [0.6], "minimum_size": 9, "certainty": False}, predict=BLOCKS)
    store_affinities(run)
    assert run_chain(run) and segment(run)
    voxels = stored(run, "segmentation/0.60")
    ids, counts = np.unique(voxels[voxels > 0], return_counts=True)
    sizes = read_segment_sizes(run, "0.60")
    assert sizes is not None
    assert (sizes["segments"], sizes["voxels"]) == (len(ids), counts.sum())
    bins = range(len(sizes["counts"]))
    assert sizes["counts"] == [int(((counts >= 2**i) & (counts < 2 ** (i + 1))).sum()) for i in bins]
    assert sizes["volumes"] == [int(counts[(counts >= 2**i) & (counts < 2 ** (i + 1))].sum()) for i in bins]
    assert sum(sizes["counts"]) == len(ids)
    order = np.lexsort((ids, -counts))
    fragments = stored(run, "fragments")
    assert [found["id"] for found in sizes["largest"]] == ids[order][:20].tolist()
    for found in sizes["largest"]:
        places = np.nonzero(voxels == found["id"])
        assert found["voxels"] == len(places[0])
        assert (*found["begin"], *found["end"]) == (*(p.min() for p in places), *(p.max() + 1 for p in places))
        assert found["fragments"] == len(np.unique(fragments[places]))
    SegmentTask(run, 0.6).drop()
    assert read_segment_sizes(run, "0.60") is None
