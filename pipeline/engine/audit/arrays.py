"""Compare the arrays on disk with what was marked as done: every block of every stage.

Shards are read once, in parallel, in the order of the blocks. Memory: a few numbers per block, and the blocks at work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from ...errors import UserError
from ...volumes import Box, RunVolume
from ...volumes.storage_errors import StorageUnavailable
from ..blocks.checksums import RecordTable, array_checksum
from ..blocks.grid import Block
from ..blocks.parallel import in_threads
from ..blocks.stage import BlockTask, Stage, VolumeTask
from ..tracking.markers import done_blocks
from ..tracking.temporary import may_be_gone, temporary_tasks


class Damage(Enum):
    """What may be wrong with a block that is marked as done."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNRECORDED = "no checksum"
    CHANGED = "other checksum"
    ZERO = "zero"
    NODES_WITHOUT_VOXELS = "nodes without voxels"
    VOXELS_WITHOUT_NODES = "voxels without nodes"
    EDGES_WITHOUT_NODES = "edges without nodes"
    MISCOUNTED = "miscounted contacts"


@dataclass
class StageFindings:
    """What the audit found of one stage.

    Attributes:
        stage: which.
        done: blocks marked as done.
        damaged: (z, y, x) bool over the block grid, per kind of damage.
        ids: (N,) int64, of an array of ids: how many each block has, -1 where that is not known.
        dropped: blocks of which files were deleted after use, as the config has it; what is left of them is not read.
        unsound: what is wrong with the stage as a whole, for example a lookup table; empty if nothing is.
    """

    stage: Stage
    done: int = 0
    damaged: dict[Damage, np.ndarray] = field(default_factory=dict)
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    dropped: int = 0
    unsound: str = ""

    def blocks(self) -> np.ndarray:
        """(z, y, x) bool over the block grid: blocks with any damage."""
        nothing = np.zeros(self.stage.grid.shape, dtype=bool)
        return np.asarray(np.logical_or.reduce([nothing, *self.damaged.values()]))

    def count(self, damage: Damage) -> int:
        """How many blocks have a kind of damage."""
        return int(self.damaged[damage].sum()) if damage in self.damaged else 0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.unsound and not self.blocks().any()


def audit_stages(stages: Sequence[Stage]) -> dict[str, StageFindings]:
    """Check the arrays of stages, and what belongs to their outputs besides.

    Args:
        stages: those that have an output under the present config, upstream ones first.

    Returns:
        By name of the stage, in their order.
    """
    findings: dict[str, StageFindings] = {}
    for stage in stages:
        found = findings[stage.name] = StageFindings(stage)
        if isinstance(stage, VolumeTask):
            _check_array(stage, found)
        elif isinstance(stage, BlockTask):
            _check_files(stage, found)
        found.unsound = found.unsound or stage.damage()
    return findings


def _check_array(task: VolumeTask, found: StageFindings) -> None:
    """Read every shard that should be there."""
    done = done_blocks(task)
    found.done, found.ids = int(done.sum()), np.where(done.ravel(), -1, 0)
    records, volume, input_holds = task.records.read(), task.open(), task.input_holds()
    may_go = may_be_gone(task) if temporary_tasks([task]) else None
    dropped = np.zeros(len(task.grid), dtype=bool)

    def check(block: Block) -> Damage | None:
        stored = task.stored_box(block.box)
        positions = [position for position, _ in volume.array.shards_in(stored)]
        gone = [position for position, there in zip(positions, volume.array.exist(positions), strict=True) if not there]
        if gone:
            dropped[block.index] = may_go is not None and all(may_go[position] for position in gone)
            return None if dropped[block.index] else Damage.MISSING
        try:
            checksum, ids = _examined(task, volume, block, stored)
        except StorageUnavailable:
            raise
        except UserError:
            return Damage.UNREADABLE
        damage = _against_record(checksum, records, block)
        if damage is not None:
            return damage
        zero = _is_doubtful(task, records, block) and input_holds(block)
        found.ids[block.index] = 0 if zero else ids
        return Damage.ZERO if zero else None

    found.damaged = _damaged(task, done, check)
    found.dropped = int(dropped.sum())


def _check_files(task: BlockTask, found: StageFindings) -> None:
    """Read what every block has stored, if the stage can say how."""
    done = done_blocks(task)
    try:
        checksum_of = task.stored_checksums() if done.any() else None
    except StorageUnavailable:
        raise
    except UserError as error:
        found.unsound = f"cannot be checked ({error})"
        return
    if checksum_of is None:
        return
    found.done, records = int(done.sum()), task.records.read()

    def check(block: Block) -> Damage | None:
        try:
            return _against_record(checksum_of(block), records, block)
        except FileNotFoundError:
            return Damage.MISSING
        except StorageUnavailable:
            raise
        except UserError:
            return Damage.UNREADABLE

    found.damaged = _damaged(task, done, check)


def _damaged(task: BlockTask, done: np.ndarray, check: Callable[[Block], Damage | None]) -> dict[Damage, np.ndarray]:
    """Look at the blocks that are done, in threads.

    Args:
        task: the task.
        done: (z, y, x) bool over the block grid.
        check: says what is wrong with a block.

    Returns:
        (z, y, x) bool over the block grid for each kind of damage that there is.
    """
    blocks = (task.grid.block(index) for index in np.flatnonzero(done).tolist())
    threads, count = task.run.config.cluster.workers, int(done.sum())
    damaged: dict[Damage, np.ndarray] = {}
    for index, damage in in_threads(
        lambda block: (block.index, check(block)), blocks, threads, count, f"audit {task.name}"
    ):
        if damage is not None:
            damaged.setdefault(damage, np.zeros(len(task.grid), dtype=bool))[index] = True
    return {kind: flags.reshape(task.grid.shape) for kind, flags in damaged.items()}


def _against_record(checksum: int, records: RecordTable, block: Block) -> Damage | None:
    """What is wrong with a block that could be read, by the checksum that was recorded of it."""
    if not records.present[block.index]:
        return Damage.UNRECORDED
    return Damage.CHANGED if checksum != records.checksum[block.index] else None


def _examined(task: VolumeTask, volume: RunVolume, block: Block, stored: Box) -> tuple[int, int]:
    """The checksum of a block as it is on disk, in a box of the array, and how many ids it has."""
    if not task.checksum_by_shard:
        data = volume.read(stored)
        return array_checksum(data), task.count_ids(block, data)
    checksum = 0
    for _, box in volume.array.shards_in(stored):
        checksum = array_checksum(volume.read(box), checksum)
    return checksum, 0


def _is_doubtful(task: VolumeTask, records: RecordTable, block: Block) -> bool:
    """Whether a block is all zero and was computed only once, where the config does not expect zeros."""
    zero = records.filled[block.index] == 0
    return bool(zero) and records.times[block.index] < 2 and not task.empty_is_an_answer
