"""Killed at any moment, the same commands finish with the same bits: what belongs together comes and goes together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCENARIOS = ("fresh", "overwritten", "segmented", "predicted", "dropped")
LONG = ("segmented", "dropped")


def kill(scenario: str, folder: Path, points: int) -> None:
    """Have work killed at so many moments (0: at all), and finished after each."""
    command = [
        sys.executable,
        str(ROOT / "tests" / "helpers" / "killing_ground.py"),
        scenario,
        str(folder),
        str(points),
    ]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    told = json.loads(finished.stdout.splitlines()[-1])
    assert told["tried"] >= min(points, told["moments"]) and told["moments"] > 20
    assert not told["wrong"], f"{told}\n{finished.stderr[-4000:]}"


@pytest.mark.parametrize("scenario", [pytest.param(s, marks=pytest.mark.slow if s in LONG else ()) for s in SCENARIOS])
def test_killed_at_some_moments(tmp_path: Path, scenario: str) -> None:
    kill(scenario, tmp_path, 5)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.timeout(3600)
def test_killed_at_every_moment(tmp_path: Path, scenario: str) -> None:
    kill(scenario, tmp_path, 0)
