"""Make the sources of a run ready: convert what must be, block by block, and look at what is read in place.

A source counts as imported when every block of its datasets has its record and its files: that is counted, then noted
in the container. Until then the same command goes on with the blocks that are missing. What is converted belongs to
the driver's lock: a second import of the same run is refused.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from funlib.geometry import Coordinate

from ..config import Source
from ..config.cluster import ExecutorName
from ..datasets.describing import describe
from ..datasets.foreseen import foresee
from ..datasets.importing import (
    drop_converted,
    has_left_overs,
    is_imported,
    note_imported,
    open_kind,
    require_voxels,
    source_identity,
)
from ..datasets.preparing import chosen_sources, is_ready, look_at, require_unchanged, tell_ranges
from ..engine.chain import drive
from ..engine.tracking.driver_lock import only_driver
from ..engine.tracking.failures import read_failures, reason_to_end
from ..engine.tracking.markers import marked_blocks, unmark_blocks
from ..engine.tracking.progress import Progress, progress_of, write_record
from ..errors import UserError
from ..run import Run, region_box
from ..units import by, disk_size
from ..volumes import ensure_container
from ..volumes.run_sources import RunSource
from ..volumes.sources import DATASETS
from .convert import ConvertTask, conversions

logger = logging.getLogger(__name__)

IN_THIS_PROCESS = 64 * 2**20
"""Bytes to write up to which no worker is started: starting takes longer than they do."""
MOST_COMPRESSION = {"raw": 50, "labels": 1000, "mask": 1000}
"""Times that voxels may shrink at best: raw that is mostly empty, labels of large objects."""
USUAL_COMPRESSION = {"raw": 1.0, "labels": 20, "mask": 100}
"""Times that they shrink at least, as a rule."""


@dataclass(frozen=True)
class _Conversion:
    """A source that is to be converted, or of which an audit has taken blocks back.

    Attributes:
        source: the source.
        tasks: one per dataset.
        identity: what is noted when all of them are done; None if it has been noted before.
    """

    source: RunSource
    tasks: Sequence[ConvertTask]
    identity: dict[str, Any] | None


def ensure_imported(run: Run, sources: Iterable[str] | None = None, tell: bool = False) -> None:
    """Convert what must be, and look at what is read in place, of every source of the config or those named.

    Args:
        run: the run directory.
        sources: names in `volumes.sources`. Default: all.
        tell: say of each of them what it is; otherwise only of those that are new.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: a source is missing or ambiguous, holds what it must not, or differs from the one that was imported
            before; another process works on the run directory; it has no room; or a name is unknown.
    """
    chosen = [(run.source(name), section) for name, section in chosen_sources(run, sources)]
    in_place = {source.name: source.datasets_in_place() for source, _ in chosen}
    new = {source.name for source, _ in chosen if _is_whole(in_place[source.name]) and not source.record.exists()}
    waiting = [source for source, section in chosen if _is_to_be_converted(run, source, section, in_place[source.name])]
    if waiting:
        new.update(_convert(run, waiting, in_place))
    for source, _ in chosen:
        _require_regions(run, source.name, source.open_raw().shape)
        look_at(source, in_place[source.name])
        if tell or (source.name in new and (in_place[source.name] or source.is_converted("raw"))):
            logger.info(describe(source))
    tell_ranges(run)


def require_same_volume(run: Run) -> None:
    """Make sure that the segmented volume is the one that the config names, for stages that import nothing: whether
    what they read is stale is told by what was imported, not by the config.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: the source has changed since it was imported, or its config section.
    """
    name = run.config.volumes.segment.source
    if is_ready(run, name):
        require_unchanged(run, name)


def require_foreseen_regions(run: Run, sources: Iterable[str] | None = None) -> None:
    """Make sure before an import that the regions which are segmented and scored lie in their sources, as far as the
    metadata of these tell.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: one is empty or reaches beyond its source.
    """
    for name, _ in chosen_sources(run, sources):
        with foresee(run, name) as source:
            if source is not None:
                _require_regions(run, name, source.shape)


def _require_regions(run: Run, source: str, shape: Coordinate) -> None:
    """Make sure that the regions which are segmented and scored lie in a source: nobody else asks before hours.

    Raises:
        UserError: one is empty or reaches beyond it.
    """
    volumes = run.config.volumes
    for name, region in {"segment": volumes.segment, **volumes.held_out}.items():
        if region.source == source:
            region_box(region, shape, f"volumes.{name}")


def plan_conversions(run: Run, sources: Iterable[str] | None = None) -> list[ConvertTask]:
    """What `ensure_imported` would have converted, as far as that can be known without a download."""
    tasks: list[ConvertTask] = []
    for name, section in chosen_sources(run, sources):
        source = run.source(name)
        in_place = source.datasets_in_place()
        if section.kind != "public" and _is_to_be_converted(run, source, section, in_place):
            conversion = _conversion(run, source, section, in_place)
            tasks += conversion.tasks if conversion is not None else []
    return tasks


def _is_whole(in_place: Collection[str]) -> bool:
    """Whether all of a source is read where it is."""
    return len(in_place) == len(DATASETS)


def _is_to_be_converted(run: Run, source: RunSource, section: Source, in_place: Collection[str]) -> bool:
    """Whether anything of a source has to be written or cleared away."""
    if _is_whole(in_place):
        return has_left_overs(source.container)
    if is_imported(source.name, section, source.container):
        return any(progress_of(task) is not Progress.DONE for task in conversions(run, source.name))
    return True


def _convert(run: Run, sources: Sequence[RunSource], in_place: dict[str, list[str]]) -> list[str]:
    """Convert sources together; the names of those of which something was converted."""
    with only_driver(run):
        found = []
        for source in sources:
            conversion = _conversion(run, source, source.section, in_place[source.name])
            if conversion is None:
                drop_converted(source.container)
            else:
                found.append(conversion)
        tasks = [task for conversion in found for task in conversion.tasks]
        if not tasks:
            return []
        require_room(run, tasks)
        for task in tasks:
            shape, size = by(task.grid.box.shape), by(task.grid.voxel_size)
            logger.info("importing %s of %s: %s voxels of %s nm", task.part, task.source, shape, size)
        for conversion in found:
            _clear_away(conversion)
            for task in conversion.tasks:
                _take_back_uncounted(task)
        if not drive(run, tasks, overwrite=True, executor=executor_for(run, tasks)):
            _raise_failure(tasks)
        for conversion in found:
            _note_if_counted(conversion)
        return [conversion.source.name for conversion in found]


def _conversion(run: Run, source: RunSource, section: Source, in_place: Collection[str]) -> _Conversion | None:
    """What is to be converted of a source; None if it turns out that nothing is."""
    if _is_whole(in_place):
        return None
    if is_imported(source.name, section, source.container):
        return _Conversion(source, conversions(run, source.name), None)
    opener = open_kind(source.name, section, source.unlabelled_id)
    with opener.open() as opened:
        require_voxels(opened, source.where)
        _require_regions(run, source.name, opened.datasets["raw"].shape)
        files = source.files() if in_place else None
        layouts = {
            name: layout for name, layout in opened.datasets.items() if files is None or not files.is_in_place(name)
        }
    if not layouts:
        return None
    identity = source_identity(section, opener)
    tasks = []
    for part, layout in layouts.items():
        task = ConvertTask(run, source.name, part)
        task.know(identity, layout)
        tasks.append(task)
    return _Conversion(source, tasks, identity)


def executor_for(run: Run, tasks: Sequence[ConvertTask]) -> ExecutorName:
    """Where blocks are converted: where the config says, but little in this process."""
    size = sum(task.grid.box.size * task.bytes_per_voxel for task in tasks)
    return "serial" if size <= IN_THIS_PROCESS else run.config.cluster.executor


def require_room(run: Run, tasks: Sequence[ConvertTask]) -> None:
    """Refuse what cannot fit on the disk however well it shrinks, and warn of what may not.

    Raises:
        UserError: it cannot fit.
    """
    tasks = [task for task in tasks if task.container.is_local]  # a bucket has no end
    if not tasks:
        return
    folder = next(path for path in (run.directory, *run.directory.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    sizes = [task.grid.box.size * task.bytes_per_voxel * _share_left(task) for task in tasks]
    least = sum(size / MOST_COMPRESSION[task.part] for task, size in zip(tasks, sizes, strict=True))
    usual = sum(size / USUAL_COMPRESSION[task.part] for task, size in zip(tasks, sizes, strict=True))
    whole = disk_size(sum(sizes))
    if least > free:
        shapes = ", ".join(f"{task.part} of {task.source}: {by(task.grid.box.shape)} voxels" for task in tasks)
        raise UserError(
            f"the import needs {whole} before compression ({shapes}), and at least {disk_size(least)} however well"
            f" that shrinks; {disk_size(free)} are free: choose another run_directory, or a part of the source",
            str(run.directory),
        )
    if usual > free:
        logger.warning(
            "the import needs %s before compression, as a rule %s on disk; %s are free at %s: it may not fit",
            whole,
            disk_size(usual),
            disk_size(free),
            run.directory,
        )


def _share_left(task: ConvertTask) -> float:
    """The share of the blocks that are still to be written."""
    if progress_of(task) is not Progress.STARTED:
        return 1.0
    return 1 - float(marked_blocks(task).mean())


def _clear_away(conversion: _Conversion) -> None:
    """Delete what an earlier import of other data has left, and make the container."""
    source = conversion.source
    ensure_container(source.container, conversion.tasks[0].run.config.storage.format)
    if conversion.identity is not None:
        drop_converted(source.container, keep=[task.part for task in conversion.tasks])


def _take_back_uncounted(task: ConvertTask) -> None:
    """Take back the markers of blocks without a record or a file: they are converted again."""
    if progress_of(task) in (Progress.ABSENT, Progress.STALE):
        return
    missing = _uncounted(task)
    if (marked_blocks(task) & missing).any() or (missing.any() and progress_of(task) is Progress.DONE):
        write_record(task, complete=False)
        unmark_blocks(task, missing)


def _uncounted(task: ConvertTask) -> np.ndarray:
    """(z, y, x) bool over the block grid: blocks that have no record, or of which a file is not there."""
    recorded = task.records.read().present.reshape(task.grid.shape)
    present = task.open().array.present()
    per_block = [
        -(-size // shard) for size, shard in zip(task.grid.block_size, task.chunk_grid.block_size, strict=True)
    ]
    for axis, shards in enumerate(per_block):
        present = np.logical_and.reduceat(present, np.arange(0, present.shape[axis], shards), axis=axis)
    missing: np.ndarray = ~(recorded & present)
    return missing


def _note_if_counted(conversion: _Conversion) -> None:
    """Note that a source is imported, if all of it is there.

    Raises:
        UserError: it is not.
    """
    for task in conversion.tasks:
        missing = int(_uncounted(task).sum())
        if missing:
            write_record(task, complete=False)
            raise UserError(
                f"{missing} of {len(task.grid)} blocks are not there; run the same command again", task.output
            )
    if conversion.identity is not None:
        note_imported(conversion.source.container, conversion.identity)


def _raise_failure(tasks: Sequence[ConvertTask]) -> None:
    """Say why an import could not be completed, in the words of its first error.

    Raises:
        UserError: always.
    """
    errors = (failure.error for task in tasks for failure in read_failures(task))
    reasons = (reason for task in tasks if (reason := reason_to_end(task)) is not None)
    told = next(errors, None) or next(reasons, "blocks could not be converted; the log says more")
    where, _, what = told.partition(": ")
    raise UserError(*((what, where) if what and " " not in where else (told,)))
