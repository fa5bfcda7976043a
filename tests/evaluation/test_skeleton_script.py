"""The script scores anybody's volume on skeletons, wherever it and its mask lie."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from stored_arrays import scale, translation, write_ngff

from pipeline.errors import UserError
from pipeline.evaluation import (
    SkeletonOptions,
    score_skeletons,
)

SCRIPT = Path(__file__).resolve().parents[2] / "workflows" / "06_evaluate.py"


def prediction(folder: Path) -> tuple[Path, Path]:
    """Somebody's segmentation that says where it lies, and a skeleton along x that is cut in it and leaves it."""
    ids = np.ones((4, 5, 10), np.uint16)
    ids[:, :, 6:] = 2
    write_ngff(folder / "theirs.zarr", ids, scale(30.5, 8, 8.25), translation(61, 80, 0))
    nodes = [(61 + 15, 80 + 20, 8.25 * (x + 0.5)) for x in range(-1, 10)]
    rows = [f"{n} 0 {x} {y} {z} 1 {n - 1 if n > 1 else -1}" for n, (z, y, x) in enumerate(nodes, 1)]
    (folder / "a.swc").write_text("\n".join(rows))
    return folder / "theirs.zarr", folder / "a.swc"


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})


def test_the_script_scores_anybodys_volume_on_skeletons(tmp_path: Path) -> None:
    theirs, swc = prediction(tmp_path)
    done = run_script("--prediction", theirs, "--skeletons", swc, "--skeleton-table", tmp_path / "table.csv")
    assert done.returncode == 0, done.stderr
    step = 8.25
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["erl"] == pytest.approx(((5 * step) ** 2 + (3 * step) ** 2) / (10 * step), abs=1e-3)
    assert found["max_erl"] == pytest.approx(10 * step, abs=1e-3)
    assert (found["split_edges"], found["omitted_edges"], found["nodes_outside"], found["nodes"]) == (1, 1, 1, 11)
    assert "merge threshold 1, no-merge mask none; 1 of 11 nodes lie outside the volume" in done.stdout
    (row,) = csv.DictReader((tmp_path / "table.csv").open())
    assert (row["skeleton"], row["splits"], row["omitted_edges"], row["segments"]) == ("a", "1", "1", "2")
    both = run_script("--prediction", theirs, "--labels", theirs, "--skeletons", swc)
    assert {"voi_sum", "cremi_score", "scored_share", "erl"} <= set(json.loads(both.stdout.splitlines()[-1]))


def test_the_place_of_a_volume_that_says_none_is_given_or_asked_for(tmp_path: Path) -> None:
    _, swc = prediction(tmp_path)
    ids = np.ones((4, 5, 10), np.uint16)
    ids[:, :, 6:] = 2
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["ids"] = ids
        file["negative"] = -ids.astype(np.int32)
    options = SkeletonOptions(swc)
    with pytest.raises(UserError, match=r"ids: nothing says how large its voxels are; give --voxel-size"):
        score_skeletons(tmp_path / "bare.h5/ids", options)
    _, summary = score_skeletons(tmp_path / "bare.h5/ids", options, (30.5, 8, 8.25), (61, 80, 0))
    assert (summary["split_edges"], summary["correct_edges"]) == (1, 8)
    with pytest.raises(UserError, match=r"no node lies in the volume: nodes are at 76, 100, .* --skeleton-scale\?"):
        score_skeletons(tmp_path / "bare.h5/ids", options, (1, 1, 1))
    with pytest.raises(UserError, match="negative: holds the negative id -2"):
        score_skeletons(tmp_path / "bare.h5/negative", options, (30.5, 8, 8.25), (61, 80, 0))


@pytest.mark.parametrize(
    ("mask_size", "mask_offset", "message"),
    [
        ((30.5, 8, 8), (61, 80, 0), r"mask.zarr.*: has voxels of 30\.5 x 8 x 8 nm, but .*theirs.zarr"),
        ((30.5, 8, 8.25), (61, 84, 0), r"lies a fraction of a voxel beside .*theirs.zarr"),
        ((30.5, 8, 8.25), (61, 800, 0), r"has no voxel in common with .*theirs.zarr"),
    ],
)
def test_a_mask_that_lies_elsewhere_is_refused(
    tmp_path: Path, mask_size: tuple[float, ...], mask_offset: tuple[float, ...], message: str
) -> None:
    theirs, swc = prediction(tmp_path)
    write_ngff(tmp_path / "mask.zarr", np.ones((4, 5, 10), np.uint8), scale(*mask_size), translation(*mask_offset))
    with pytest.raises(UserError, match=message):
        score_skeletons(theirs, SkeletonOptions(swc, no_merge_mask=tmp_path / "mask.zarr"))


def test_a_mask_at_another_place_covers_what_it_covers(tmp_path: Path) -> None:
    theirs, swc = prediction(tmp_path)
    mask = np.zeros((4, 5, 20), np.uint8)
    mask[0, 0, 10 + 5] = 1  # the last column of segment 1
    write_ngff(tmp_path / "mask.zarr", mask, scale(30.5, 8, 8.25), translation(61, 80, -82.5))
    lengths, _ = score_skeletons(theirs, SkeletonOptions(swc, no_merge_mask=tmp_path / "mask.zarr"))
    assert (lengths.merged.tolist(), lengths.correct.tolist()) == ([5], [3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--merge-threshold", "2"], "--merge-threshold: belongs to --skeletons"),
        (["--skeletons", "a.swc", "--merge-threshold", "0"], "--merge-threshold: is 0; one node at least merges"),
        (["--skeletons", "b.swc"], "b.swc: there is no such file or folder"),
        (["--skeletons", "a.swc", "--voxel-size", "1", "1", "0"], "argument --voxel-size: 0 is not above 0"),
        (["--skeletons", "a.swc", "--offset", "0", "nan", "0"], "argument --offset: nan is no place"),
    ],
)
def test_wrong_options_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    theirs, _ = prediction(tmp_path)
    given = [str(tmp_path / text) if text.endswith(".swc") else text for text in arguments]
    done = run_script("--prediction", theirs, *given)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
