"""daisy's markers of finished blocks: read all at once, or take some back.

daisy 2 keeps `done`, a zarr array (format 3, one uncompressed chunk) of one byte per block, in the tracking folder of
a task. It covers the context too, so it may be larger than the grid; both begin at the same block. daisy only ever
sets bytes; taking them back is what an audit needs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...run import read_json, write_json
from ..blocks.stage import BlockTask
from .progress import marker_folder, read_record


def marked_blocks(task: BlockTask) -> np.ndarray:
    """(z, y, x) bool over the block grid: blocks that daisy has marked as done.

    Raises:
        UserError: the markers are not in the layout of daisy 2.
    """
    path, shape = _chunk(task), _shape(task)
    if shape is None or not path.exists():
        return np.zeros(task.grid.shape, dtype=bool)
    return np.array(_within(np.fromfile(path, dtype=np.uint8).reshape(shape), task) != 0)


def done_blocks(task: BlockTask) -> np.ndarray:
    """(z, y, x) bool over the block grid: blocks that were computed and count as done.

    Raises:
        UserError: the markers are not in the layout of daisy 2.
    """
    worth_computing: np.ndarray = ~task.empty
    if read_record(task).get("complete") is True:
        return worth_computing
    computed: np.ndarray = marked_blocks(task) & worth_computing
    return computed


def proven_blocks(task: BlockTask) -> np.ndarray:
    """(z, y, x) bool over the block grid: blocks that are marked and have a sound record, and empty ones, which need
    neither. Whoever reaches daisy's port can have a block marked; only who computed it leaves its record.

    Raises:
        UserError: the markers are not in the layout of daisy 2.
    """
    proven: np.ndarray = marked_blocks(task)
    if task.keeps_records:
        proven &= task.records.read().present.reshape(tuple(task.grid.shape))
    proven |= task.empty
    return proven


def unmark_blocks(task: BlockTask, blocks: np.ndarray) -> None:
    """Take back the markers of some blocks, and what their records prove; on disk when this returns. No driver may be
    at work.

    Args:
        task: whose markers.
        blocks: (z, y, x) bool over the block grid.

    Raises:
        UserError: the markers are not in the layout of daisy 2.
    """
    path, shape = _chunk(task), _shape(task)
    task.records.take_back(blocks)
    if shape is None or not path.exists():
        return
    marks = np.fromfile(path, dtype=np.uint8).reshape(shape)
    _within(marks, task)[blocks] = 0
    with path.open("r+b") as file:
        file.write(marks.tobytes())
        file.flush()
        os.fsync(file.fileno())


def accept_any_unit(task: BlockTask) -> None:
    """Let markers that were begun in nanometres go on in voxels.

    daisy keeps a hash of the task's geometry with its markers, and refuses them to a task with another one. Here the
    folder has the stage's key, which covers the geometry and more; and without that hash, daisy compares shapes alone.
    """
    path = marker_folder(task) / "zarr.json"
    document = read_json(path)
    if document.get("attributes", {}).pop("daisy_task_hash", None) is not None:
        write_json(path, document)


def _within(marks: np.ndarray, task: BlockTask) -> np.ndarray:
    """The part of the array that is the grid."""
    return marks[tuple(slice(extent) for extent in task.grid.shape)]


def _chunk(task: BlockTask) -> Path:
    return marker_folder(task) / "done" / "c" / "0" / "0" / "0"


def _shape(task: BlockTask) -> tuple[int, ...] | None:
    """Shape of the array, whose layout is checked; None if there is none yet."""
    path = marker_folder(task) / "done" / "zarr.json"
    if not path.exists():
        return None
    document = json.loads(path.read_text())
    shape, chunks = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
    codecs = [codec["name"] for codec in document["codecs"]]
    covered = all(extent >= blocks for extent, blocks in zip(shape, task.grid.shape, strict=True))
    if document["data_type"] != "uint8" or codecs != ["bytes"] or chunks != shape or not covered:
        raise UserError("daisy's markers are not laid out as daisy 2 does", str(path))
    return tuple(shape)
