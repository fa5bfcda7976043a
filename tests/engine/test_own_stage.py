"""A stage of one's own, as docs/ENGINE.md shows it: the very text runs, in worker processes and in jobs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import median_filter
from slurm_cluster import SlurmCluster
from toy_tasks import make_run

from pipeline.config import dump_config
from pipeline.run import Run, read_json
from pipeline.volumes import open_volume

ROOT = Path(__file__).parents[2]


def shown_script() -> str:
    """The script of the docs."""
    text = (ROOT / "docs" / "ENGINE.md").read_text()
    (script,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "VolumeTask" in block)
    return str(script)


def run_shown_script(folder: Path, cluster: dict[str, Any], *options: str) -> tuple[Run, str]:
    """Run it with a small config as a user does; the run, and what the script said."""
    run = make_run(folder / "run", shape=(9, 12, 11), cluster=cluster)
    (folder / "median.py").write_text(shown_script())
    (folder / "config.json").write_text(json.dumps(dump_config(run.config)))
    command = [sys.executable, "median.py", "config.json", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return run, done.stderr


def assert_median(run: Run) -> None:
    """Of the whole region, with what lies around it, and mirrored at the faces of raw."""
    raw, median = open_volume(run.volume, "raw"), open_volume(run.volume, "median")
    expected = median_filter(raw.read(raw.box), size=3, mode="mirror")
    np.testing.assert_array_equal(median.read(median.box), expected[1:, 2:, 1:])
    assert tuple(median.offset) == (120, 16, 24)


def test_the_stage_of_the_docs_runs_in_processes_and_resumes(tmp_path: Path) -> None:
    assert len([line for line in shown_script().splitlines() if line.strip()]) <= 35, "about thirty lines"
    run, said = run_shown_script(tmp_path, {"executor": "local", "workers": 2})
    assert_median(run)
    assert "median: wrote 18 blocks" in said
    assert "next:" not in said, "what follows is the user's own business"
    assert read_json(run.summary)["stages"]["median"]["blocks_done"] == 18
    _, said = run_shown_script(tmp_path, {"executor": "local", "workers": 2})
    assert "median: up to date, 18 blocks" in said
    _, said = run_shown_script(tmp_path, {"executor": "local", "workers": 2}, "--dry-run")
    assert "18 blocks of 4×4×4 voxels" in said


def test_the_stage_of_the_docs_runs_in_jobs(slurm: SlurmCluster, tmp_path: Path) -> None:
    run, _ = run_shown_script(tmp_path, {"executor": "slurm", "workers": 2, "slurm": {"poll": 0.5}})
    assert_median(run)
