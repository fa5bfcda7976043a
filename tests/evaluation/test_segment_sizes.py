"""Sizes of segments as 05_segment.py notes them equal those of its voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from voronoi_run import make_run, store_affinities, stored

from pipeline.evaluation import read_segment_sizes
from pipeline.stages.by_script import run_chain, segment
from pipeline.stages.segment import SegmentTask

BLOCKS = {"block_size": [8, 20, 35], "tile_size": [8, 40, 35]}


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
