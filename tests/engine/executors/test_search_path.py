"""No process of a run imports what lies in the working directory or beside the config."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slurm_cluster import SlurmCluster
from toy_tasks import Doubled, Summed, expected_sums, make_run

from pipeline.engine.chain import run_stages
from pipeline.engine.pilot import log_pilots
from pipeline.run import Run

STRANGER = "raise SystemExit('a stranger was imported')\n"


@pytest.fixture
def folder_of_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory and run directory, with files that have the names of this program's and of daisy's."""
    for name in ("pipeline.py", "daisy.py", "sitecustomize.py"):
        (tmp_path / name).write_text(STRANGER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_finishes(run: Run) -> None:
    assert run_stages(run, [Doubled(run), Summed(run)], overwrite=False)
    np.testing.assert_array_equal(Summed(run).open().read(Summed(run).grid.box), expected_sums(run))


def test_local_workers_import_no_stranger(folder_of_strangers: Path) -> None:
    assert_finishes(make_run(folder_of_strangers, cluster={"executor": "local"}))


def test_jobs_import_no_stranger(slurm: SlurmCluster, folder_of_strangers: Path) -> None:
    assert_finishes(make_run(folder_of_strangers, cluster={"executor": "slurm", "slurm": {"poll": 0.5}}))


def test_a_pilot_imports_no_stranger(folder_of_strangers: Path) -> None:
    run = make_run(folder_of_strangers, cluster={"executor": "local"})
    log_pilots(run, [Doubled(run)], blocks=1, overwrite=False)
    assert Doubled(run).open().array.present().any()
