"""Skeletons that a run exports, scored against the segmentation that they are of: every format, and by the script."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from voronoi_run import SHAPE, make_run, store_affinities, stored

from pipeline import api
from pipeline.evaluation import SkeletonOptions, score_skeletons
from pipeline.run import Run
from pipeline.volumes import create_volume

SCRIPT = Path(__file__).resolve().parents[2] / "workflows" / "06_evaluate.py"
THRESHOLD = 0.45
REGIONS = {
    "validate": {"source": "a", "begin": [1, 2, 3], "end": [5, 42, 38]},
    "test": {"source": "a", "begin": [5, 2, 3], "end": [9, 42, 38]},
}
SWEEP = {"sweep": [0.1, THRESHOLD, 0.9], "minimum_size": 1, "relabel": False}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run, whose labels are its segmentation, and the folder of that with its skeletons."""
    run = make_run(tmp_path_factory.mktemp("run"), segment={"thresholds": [THRESHOLD]}, volumes=REGIONS, evaluate=SWEEP)
    store_affinities(run)
    assert api.extract_fragments(run) and api.agglomerate(run) and api.segment(run)
    labels = np.zeros(SHAPE, np.uint64)
    labels[1:, 2:, 3:] = stored(run, f"segmentation/{THRESHOLD}")
    volume = create_volume(run.volume, "labels", SHAPE, np.uint64, voxel_size=(40, 8, 8), chunks=(4, 16, 16))
    volume.write(volume.box, labels)
    run.save_config()
    to = tmp_path_factory.mktemp("to")
    chosen = {"threshold": THRESHOLD, "arrays": ("segmentation",), "skeletons": True, "minimum_size": 50}
    assert api.export(run, "precomputed", to, **chosen)
    return run, to / "segmentation"


@pytest.mark.parametrize("place", ["swc", "skeletons", ""])
def test_a_segmentation_runs_along_all_of_its_own_skeletons(exported: tuple[Run, Path], place: str) -> None:
    run, folder = exported
    for volume in (run.directory / f"volume.zarr/segmentation/{THRESHOLD}", folder):
        lengths, summary = score_skeletons(volume, SkeletonOptions(folder / place))
        assert summary["erl"] == summary["max_erl"] > 100 and summary["normalised_erl"] == 1
        assert summary["skeletons"] > 4 and lengths.segments.max() == 1
        assert summary["nodes_outside"] == summary["split_edges"] == summary["omitted_edges"] == 0


def test_the_script_says_which_region_is_which(exported: tuple[Run, Path]) -> None:
    run, folder = exported
    command = [sys.executable, str(SCRIPT), str(run.directory / "config.json"), "--skeletons", str(folder / "swc")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "above: volumes.validate, which chooses the threshold; below: volumes.test" in done.stdout
    assert f"best on volumes.validate: threshold {THRESHOLD}, VOI 0.000 bits on volumes.test" in done.stdout
    assert "merge threshold 1, no-merge mask none" in done.stdout and "normalised 1.0000" in done.stdout
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["threshold"], last["voi_sum"], last["normalised_erl"]) == (THRESHOLD, 0, 1)
    assert last["erl"] == last["max_erl"] > 0 and last["merge_threshold"] == 1
    again = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert "the best of them on volumes.test, voxels (5, 2, 3) to (9, 42, 38), on" in again.stdout
    refused = subprocess.run([*command, "--voxel-size", "1", "1", "1"], capture_output=True, text=True)
    assert refused.returncode == 2 and "--voxel-size: belongs to --prediction" in refused.stderr


def test_run_lengths_fall_on_both_sides_of_the_threshold(exported: tuple[Run, Path]) -> None:
    run, folder = exported
    lengths = api.evaluate(run, skeletons=folder / "swc")["run_length"]
    at = {threshold: found["normalised_erl"] for threshold, found in lengths["thresholds"].items()}
    assert at["0.10"] < at["0.45"] == 1 > at["0.90"]
