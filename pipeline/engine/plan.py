"""Tells what a stage would do: blocks, bytes, files, and how much more than its own voxels it reads and decodes.

All sums over blocks are products of sums along the axes, so that a plan of millions of blocks takes no time.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from funlib.geometry import Coordinate

from ..command_names import name_of
from ..config.cluster import ExecutorName
from ..errors import UserError
from ..run import Run
from ..slurm import job_in_words
from ..terminal import rendered, table_of
from ..units import counted, disk_size, times
from ..volumes import Box, chunk_inside, container_format, volume_exists
from ..volumes.locations import Location
from .blocks.grid import BlockGrid
from .blocks.stage import BlockReader, BlockTask, Stage, VolumeTask
from .chain import check_stages
from .executors.portions import peak_voxels, temporary_one
from .tracking.markers import marked_blocks
from .tracking.progress import Progress
from .tracking.temporary import temporary_tasks

logger = logging.getLogger(__name__)

SAMPLED_FILES = 100
"""Files that are there already tell how well the next ones compress."""


def log_plan(
    run: Run, stages: Sequence[Stage], executor: ExecutorName | None = None, before: Sequence[Stage] = ()
) -> None:
    """Check that the stages can run and say what they would do; nothing is written.

    Args:
        run: the run.
        stages: upstream first.
        executor: where blocks would be computed, if not where the config says.
        before: what would have been written by then, and counts on the disk alone.

    Raises:
        UserError: as running them would.
    """
    states = check_stages(stages)
    for stage in stages:
        for line in plan_lines(stage, states[stage], executor):
            logger.info(line)
    for line in dropped_lines(stages):
        logger.info(line)
    wanted = {run.arrays: 0} | {stage.array_place: 0 for stage in (*before, *stages)}
    for stage in before:
        wanted[stage.array_place] += stage.array_bytes
    for stage in stages:
        wanted[stage.array_place] += bytes_to_write(stage, stages, states[stage])
    for line in _space_lines({place: size for place, size in wanted.items() if size} or {run.arrays: 0}):
        logger.info(line)


def _space_lines(wanted: dict[Location, int]) -> list[str]:
    """A line on each place where arrays are written; places on the same disk share what is free there.

    Args:
        wanted: bytes to write, by place.
    """
    disks = {place: _existing(place.file) for place in wanted if place.is_local}
    together: Counter[int] = Counter()
    for place, folder in disks.items():
        together[folder.stat().st_dev] += wanted[place]
    lines = []
    for place, size in wanted.items():
        text = f"at most {disk_size(size)} of arrays to write"
        if place not in disks:
            lines.append(f"bucket: {text} to {place}")
            continue
        free = shutil.disk_usage(disks[place]).free
        shortage = "; IT MAY NOT FIT" if together[disks[place].stat().st_dev] > free else ""
        lines.append(f"disk: {text}, {disk_size(free)} free at {place}{shortage}")
    return lines


def plan_lines(stage: Stage, state: Progress, executor: ExecutorName | None = None) -> list[str]:
    """A few lines on a stage; the first says how far its output is."""
    how_far = state.value
    if state is Progress.STALE:
        how_far = stage.lies_instead() or f"{how_far}; --overwrite would redo it"
    lines = [f"{stage.name}: {how_far}"]
    if isinstance(stage, BlockTask):
        jobs = _jobs(stage, executor or stage.run.config.cluster.executor)
        if stage.grid_counts == "files":
            return [
                f"{lines[0]}; {counted(len(stage.grid), 'file')}",
                *(f"  {name}: {text}" for name, text in (*stage.plan_details(), *jobs)),
            ]
        lines[0] += f"; {counted(len(stage.grid), 'block')} of {times(stage.grid.block_size)} voxels in " + times(
            stage.grid.region.shape
        )
        lines += [f"  {line}" for line in rendered(table_of(("", ""), [*_details(stage), *jobs]))[1:]]
    return lines


def _details(task: BlockTask) -> list[tuple[str, str]]:
    read = task.reader()
    voxels, overhead = read_voxels(task, read), context_overhead(task, read)
    per_voxel = task.bytes_read_per_voxel
    details = [("context", f"{overhead:.2f} voxels read per voxel written")]
    details.append(("read", f"{disk_size(voxels * per_voxel)} ({per_voxel} bytes per voxel)"))
    details += task.plan_details()
    if isinstance(task, VolumeTask):
        details.append(("write", _written(task)))
        details.append(("files", _files(task)))
    return details


def _jobs(task: BlockTask, executor: ExecutorName) -> list[tuple[str, str]]:
    """How many batch jobs compute a stage at a time, and what each of them asks for; nothing without SLURM."""
    if executor != "slurm":
        return []
    cluster = task.run.config.cluster
    asked = job_in_words(cluster.slurm.job(task.stage), threads=cluster.threads_per_worker)
    return [("jobs", f"up to {min(task.workers, len(task.grid))} at a time: {asked}")]


def _files(task: VolumeTask) -> str:
    """How many files the array has, and what is in one."""
    files, block = len(task.chunk_grid), task.stored_grid.block_size
    share = "one per block" if files == len(task.grid) else f"of {times(block)} voxels"
    present = container_format(task.container)
    if (present or task.run.config.storage.format) == 2:
        return f"{counted(files, 'chunk')}, {share}, no two blocks share one"
    return (
        f"{counted(files, 'shard')}, {share}, no two blocks share one; in chunks of {times(chunk_inside(block))} voxels"
    )


def _written(task: VolumeTask) -> str:
    text = f"{task.dataset}: {disk_size(task.array_bytes)} before compression"
    per_file = mean_file_bytes(task)
    if per_file is None:
        return text
    return text + f", about {disk_size(per_file * len(task.chunk_grid))} on disk (as the files that are there)"


def bytes_to_write(stage: Stage, stages: Sequence[Stage], state: Progress) -> int:
    """The most bytes before compression that are yet to be written of a stage's array while stages run together."""
    most = most_bytes(stage, stages)
    if state is Progress.DONE:
        return 0
    if state is not Progress.STARTED or not isinstance(stage, BlockTask):
        return most
    left = np.count_nonzero(~(marked_blocks(stage) | stage.known_empty()[0]))
    voxels = int(left) * math.prod(stage.grid.block_size)
    return min(most, -(-stage.array_bytes * voxels // stage.grid.box.size))


def most_bytes(stage: Stage, stages: Sequence[Stage]) -> int:
    """The most bytes of a stage's array before compression that are there at a time while stages run together."""
    tasks = [task for task in stages if isinstance(task, BlockTask)]
    if stage is not temporary_one(tasks) or not isinstance(stage, VolumeTask):
        return stage.array_bytes
    return peak_voxels(tasks, stage) * stage.bytes_per_voxel


def dropped_lines(stages: Sequence[Stage]) -> list[str]:
    """What there is to say of an array that is dropped as it is used."""
    lines = []
    for task in temporary_tasks(stages):
        if task.temporary_for:
            most = most_bytes(task, stages)
            share = f"{most / task.grid.box.size:.2f} bytes per voxel"
            lines.append(f"{task.dataset}: dropped after use, at most {disk_size(most)} at a time ({share})")
            if most == task.array_bytes:
                last = task.temporary_for[-1].script
                lines.append(f"  all of it, unless {name_of(last)} or run_all.py makes it portion by portion")
    return lines


def mean_file_bytes(task: VolumeTask) -> float | None:
    """Mean size of some files of an array on disk; None if there are none."""
    if not volume_exists(task.container, task.dataset):
        return None
    try:
        sizes = task.open().array.sizes(SAMPLED_FILES)
    except UserError:
        return None  # its creation was interrupted
    return float(np.mean(sizes)) if sizes else None


def context_overhead(task: BlockTask, read: BlockReader | None = None) -> float:
    """Voxels that all blocks read, per voxel that they write."""
    return read_voxels(task, read or task.reader()) / task.grid.box.size


def read_voxels(task: BlockTask, read: BlockReader) -> int:
    """Voxels that all blocks read together."""
    extents = [[box.shape[axis] for box in boxes] for axis, boxes in enumerate(_boxes_along_axes(task.grid, read))]
    return int(np.prod([sum(along) for along in extents]))


def decoded_voxels(grid: BlockGrid, read: BlockReader, shape: Coordinate, chunks: Coordinate) -> int:
    """Voxels of all chunks that the blocks touch, in a volume of `shape` voxels; a chunk counts for each block."""
    sums = []
    for axis, boxes in enumerate(_boxes_along_axes(grid, read)):
        touched = 0
        for box in boxes:
            first = max(0, box.begin[axis]) // chunks[axis]
            last = (min(shape[axis], box.end[axis]) - 1) // chunks[axis]
            touched += (last - first + 1) * chunks[axis]
        sums.append(touched)
    return int(np.prod(sums))


def _boxes_along_axes(grid: BlockGrid, read: BlockReader) -> list[list[Box]]:
    """What the blocks along each edge of the grid that leaves its first corner read. Blocks read boxes, so that the
    extent of any block along an axis is that of the block on this edge.
    """
    boxes = []
    for axis, count in enumerate(grid.shape):
        stride = int(np.prod(grid.shape[axis + 1 :]))
        boxes.append([read(grid.block(position * stride)) for position in range(count)])
    return boxes


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
