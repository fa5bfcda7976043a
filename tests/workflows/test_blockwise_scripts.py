"""The scripts as a user types them: exit statuses, and one line that says what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from run_files import shard_of
from voronoi_run import make_run, store_affinities

WORKFLOWS = Path(__file__).parents[2] / "workflows"


def run_workflow(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(WORKFLOWS / script), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)


def test_stages_run_from_the_config_of_the_current_folder(tmp_path: Path) -> None:
    make_run(tmp_path, fragments={"boundary_threshold": 0.98}).save_config()
    plan = run_workflow("03_extract_fragments.py", tmp_path, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "fragments: there is no output; 18 blocks of 4×16×16 voxels in 8×40×35" in plan.stderr
    early = run_workflow("04_agglomerate.py", tmp_path)
    assert early.returncode == 2
    assert early.stderr.splitlines() == [
        "error: rag needs fragments, which is missing; run workflows/03_extract_fragments.py first"
    ]
    assert not (tmp_path / "rag.sqlite").exists()


def test_failed_blocks_give_exit_status_1_and_name_the_chunk(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.save_config()
    store_affinities(run)
    chunk = shard_of(run, "affinities", 1, 2, 2)
    chunk.write_bytes(chunk.read_bytes()[:-5])
    result = run_workflow("03_extract_fragments.py", tmp_path)
    assert result.returncode == 1
    assert "fragments: 8 of 18 blocks failed" in result.stderr
    assert "shard c/0/1/2/2 is truncated" in result.stderr
    assert "Traceback" not in result.stderr
