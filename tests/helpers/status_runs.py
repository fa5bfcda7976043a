"""Runs in the states that a status has to tell apart, made with the parts that make them in earnest."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.engine.blocks.stage import BlockTask
from pipeline.engine.status import RunStatus, StageStatus
from pipeline.engine.tracking.driver_lock import only_driver
from pipeline.engine.tracking.driver_record import DriverRecord, TaskRecord, read_driver
from pipeline.engine.tracking.progress import begin, marker_folder
from pipeline.run import Run
from pipeline.stages.fragments import FragmentsTask
from pipeline.stages.predict import PredictTask
from pipeline.stages.run_status import read_status

CONFIG = Path("config.json")
NO_PROCESS = 2**22 + 1
"""An id that Linux gives to no process."""


def look(run: Run) -> RunStatus:
    """The status now, untimed."""
    return read_status(run, CONFIG)


def stage_of(status: RunStatus, name: str) -> StageStatus:
    """One stage of it."""
    return next(stage for stage in status.stages if stage.name == name)


def first_tasks(run: Run) -> list[BlockTask]:
    """Two stages that run together."""
    return [PredictTask(run), FragmentsTask(run)]


@contextmanager
def driver_at_work(run: Run, seconds: float = 0.0, executor: str = "local") -> Iterator[Sequence[BlockTask]]:
    """This process has begun with the first tasks, some seconds ago."""
    with only_driver(run):
        tasks = first_tasks(run)
        for task in tasks:
            begin(task)
        notices = [
            TaskRecord(task.name, str(task.folder.relative_to(run.directory)), len(task.grid), 0) for task in tasks
        ]
        notice = DriverRecord.of_this_process(executor, tuple(notices))
        replace(notice, began=time.time() - seconds).save(run)
        yield tasks


def another_was_the_driver(run: Run) -> None:
    """As if a process that is gone had driven the run, and not this one."""
    notice = read_driver(run)
    assert notice is not None
    replace(notice, process=NO_PROCESS).save(run)


def mark_done(task: BlockTask, blocks: int) -> None:
    """Daisy's markers, as it writes them, with the first blocks done."""
    folder = marker_folder(task) / "done"
    (folder / "c" / "0" / "0").mkdir(parents=True, exist_ok=True)
    before = task.context // task.grid.block_size  # daisy counts from where the context of the first block begins
    shape = [int(extent) for extent in before * 2 + task.grid.shape]
    document = {
        "shape": shape,
        "chunk_grid": {"configuration": {"chunk_shape": shape}},
        "codecs": [{"name": "bytes"}],
        "data_type": "uint8",
    }
    (folder / "zarr.json").write_text(json.dumps(document))
    done = np.zeros(len(task.grid), dtype=np.uint8)
    done[:blocks] = 1
    marks = np.zeros(shape, dtype=np.uint8)
    z, y, x = (slice(first, first + extent) for first, extent in zip(before, task.grid.shape, strict=True))
    marks[z, y, x] = done.reshape(task.grid.shape)
    marks.tofile(folder / "c" / "0" / "0" / "0")
