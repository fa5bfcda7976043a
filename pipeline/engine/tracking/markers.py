"""daisy's markers of finished blocks: read all at once, take some back, or make them anew from the records.

daisy 2 keeps `done`, a zarr array (format 3, one uncompressed chunk) of one byte per block, in the tracking folder of
a task. It covers the context too, so it may be larger than the grid; both begin at the same block. daisy only ever
sets bytes; taking them back is what an audit needs.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from pathlib import Path

import numpy as np

from ...errors import UserError, writing
from ...small_files import read_json, sync_folder, understanding, write_json
from ..blocks.stage import BlockTask
from .progress import marker_folder, read_record

CHUNK = Path("c", "0", "0", "0")
"""The one chunk of each of daisy's arrays."""
ARRAYS = {"done": "uint8", "failures": "uint32"}
"""daisy's arrays, and their types."""


def marked_blocks(task: BlockTask) -> np.ndarray:
    """(z, y, x) bool over the block grid: blocks that daisy has marked as done; where its markers cannot be read, those
    that have a record, which are as good.
    """
    if not marker_folder(task).exists():
        return np.zeros(task.grid.shape, dtype=bool)
    marks = _marks(task)
    return recorded_blocks(task) if marks is None else np.array(_within(marks, task) != 0)


def recorded_blocks(task: BlockTask) -> np.ndarray:
    """(z, y, x) bool over the block grid: blocks with a sound record, which workers write before daisy hears of it."""
    return task.records.read().present.reshape(tuple(task.grid.shape))


def are_whole(task: BlockTask) -> bool:
    """Whether daisy's markers of a task are there, and daisy can go on with them."""
    folder = marker_folder(task)
    try:
        if read_json(folder / "zarr.json").get("node_type") != "group":
            return False
        for name, dtype in ARRAYS.items():
            shape = _shape(folder / name, task, dtype)
            if (folder / name / CHUNK).stat().st_size != math.prod(shape) * np.dtype(dtype).itemsize:
                return False
    except (OSError, UserError):
        return False
    return True


def replace_markers(task: BlockTask, fresh: Path) -> None:
    """Put markers that daisy has made elsewhere in the place of those that are not whole, in one step.

    What was done stays done: of blocks that have a record, the new markers say so.

    Args:
        task: whose markers.
        fresh: the folder in which daisy has made its files; on the same file system. It is gone afterwards.

    Raises:
        UserError: the disk is full or not writable.
    """
    path = fresh / "done" / CHUNK
    marks = np.zeros(_shape(fresh / "done", task, ARRAYS["done"]), dtype=np.uint8)
    _within(marks, task)[recorded_blocks(task)] = 1
    with writing(path):
        with path.open("r+b") as file:
            file.write(marks.tobytes())
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(marker_folder(task), ignore_errors=True)
        fresh.rename(marker_folder(task))
        with contextlib.suppress(OSError):
            sync_folder(fresh.parent)


def done_blocks(task: BlockTask) -> np.ndarray:
    """(z, y, x) bool over the block grid: blocks that were computed and count as done."""
    worth_computing: np.ndarray = ~task.empty
    if read_record(task).get("complete") is True:
        return worth_computing
    computed: np.ndarray = marked_blocks(task) & worth_computing
    return computed


def proven_blocks(task: BlockTask) -> np.ndarray:
    """(z, y, x) bool over the block grid: blocks that are marked and have a sound record, and empty ones, which need
    neither. Whoever reaches daisy's port can have a block marked; only who computed it leaves its record.
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
    """
    task.records.take_back(blocks)
    marks = _marks(task)
    if marks is None:
        return  # without markers that can be read, records count
    _within(marks, task)[blocks] = 0
    with (marker_folder(task) / "done" / CHUNK).open("r+b") as file:
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
    """The part of the array that is the grid: daisy counts blocks from where the context of the first one begins."""
    before = task.context // task.grid.block_size
    z, y, x = (slice(first, first + extent) for first, extent in zip(before, task.grid.shape, strict=True))
    return marks[z, y, x]


def _marks(task: BlockTask) -> np.ndarray | None:
    """The whole array of markers, (z, y, x) uint8; None if it cannot be read."""
    folder = marker_folder(task) / "done"
    try:
        shape = _shape(folder, task, ARRAYS["done"])
        return np.frombuffer((folder / CHUNK).read_bytes(), np.uint8).reshape(shape).copy()
    except (OSError, ValueError, UserError):
        return None


def _shape(folder: Path, task: BlockTask, dtype: str) -> tuple[int, ...]:
    """Shape of an array of daisy's, whose layout is checked.

    Raises:
        UserError: it is not laid out as daisy 2 does.
    """
    path = folder / "zarr.json"
    document = read_json(path)
    with understanding(path):
        shape, chunks = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
        codecs = [codec["name"] for codec in document["codecs"]]
        needed = task.context // task.grid.block_size + task.grid.shape
        covered = all(extent >= blocks for extent, blocks in zip(shape, needed, strict=True))
        if document["data_type"] != dtype or codecs != ["bytes"] or chunks != shape or not covered:
            raise ValueError("not laid out as daisy 2 does")
        return tuple(int(extent) for extent in shape)
