"""After an audit: take back the markers of what is damaged and of what was made from it, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .audit import StageFindings
from .markers import done_blocks, unmark_blocks
from .segment import SegmentTask, lut_path
from .stage import BlockTask, DriverStep, Stage
from .tracking import write_record


def blocks_to_redo(findings: Sequence[StageFindings]) -> dict[str, np.ndarray]:
    """The blocks of each stage that are damaged, or that read a block that is redone.

    Args:
        findings: of all stages, upstream ones first.

    Returns:
        By name of the stage, (z, y, x) bool over the block grid; of a step of the driver, all or none. Stages that
        are left alone are not named.
    """
    redo: dict[str, np.ndarray] = {}
    for found in findings:
        stage = found.stage
        blocks = found.blocks()
        if isinstance(stage, BlockTask):
            for upstream in stage.reads:
                if upstream.name in redo and not isinstance(upstream, DriverStep):
                    blocks |= readers(redo[upstream.name], stage)
            blocks &= done_blocks(stage)
        elif found.unsound or any(upstream.name in redo for upstream in stage.upstream):
            blocks[:] = True
        if blocks.any() or needs_table(found, redo):
            redo[stage.name] = blocks
    return redo


def needs_table(found: StageFindings, redo: dict[str, np.ndarray]) -> bool:
    """Whether a segmentation's lookup table is to be made again."""
    stage = found.stage
    if not isinstance(stage, SegmentTask):
        return False
    return bool(found.unsound) or any(upstream.name in redo for upstream in stage.upstream)


def readers(blocks: np.ndarray, task: BlockTask) -> np.ndarray:
    """(z, y, x) bool over the block grid: the blocks of a task that read one of some blocks of an earlier stage."""
    low, high = (
        [-(-context // size) for context, size in zip(contexts, task.grid.block_size, strict=True)]
        for contexts in (task.context, task.high_context)
    )
    reach = [max(steps) for steps in zip(low, high, strict=True)]
    structure = np.zeros([2 * steps + 1 for steps in reach], dtype=bool)
    structure[
        tuple(slice(most - after, most + before + 1) for most, before, after in zip(reach, low, high, strict=True))
    ] = True
    return np.asarray(ndimage.binary_dilation(blocks, structure))


def requeue(findings: Sequence[StageFindings]) -> dict[str, np.ndarray]:
    """Have the normal commands redo what `blocks_to_redo` names; returns that. No driver may be at work."""
    redo = blocks_to_redo(findings)
    for found in findings:
        if found.stage.name in redo:
            _take_back(found.stage, redo[found.stage.name], needs_table(found, redo))
    return redo


def _take_back(stage: Stage, blocks: np.ndarray, table: bool) -> None:
    """First the statement that the stage is complete, then the markers: interrupted, it can be repeated."""
    write_record(stage, complete=False)
    if isinstance(stage, BlockTask):
        unmark_blocks(stage, blocks)
    if isinstance(stage, SegmentTask) and table:
        lut_path(stage.run, stage.threshold).unlink(missing_ok=True)
