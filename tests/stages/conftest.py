"""Runs whose affinities are temporary, for the tests of dropping them and of making them again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from temporary_run import stored_affinities, temporary_run

from pipeline.engine.executors import until_recorded
from pipeline.engine.tracking import temporary
from pipeline.run import Run
from pipeline.stages.by_script import agglomerate, run_chain, segment


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All done, and all affinities kept; to be read only."""
    run = temporary_run(tmp_path_factory.mktemp("kept"), "all")
    assert run_chain(run) and segment(run)
    return run


@pytest.fixture(scope="session")
def used_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of which all is done, and all affinities dropped; to be copied."""
    run = temporary_run(tmp_path_factory.mktemp("used") / "used")
    assert agglomerate(run) and segment(run)
    assert stored_affinities(run) == 0
    return run.directory


@pytest.fixture
def used(tmp_path: Path, used_directory: Path) -> Run:
    """All done, and all affinities dropped."""
    shutil.copytree(used_directory, tmp_path / "used")
    return temporary_run(tmp_path / "used")


@pytest.fixture
def most_stored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files of affinities there were at a time: before each time that some are dropped."""
    counts: list[int] = []
    drop = temporary.drop_used

    def counted(task: Any) -> int:
        counts.append(int(task.open().array.present().sum()))
        return drop(task)

    monkeypatch.setattr(until_recorded, "drop_used", counted)
    return counts
