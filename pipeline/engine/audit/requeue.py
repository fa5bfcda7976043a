"""After an audit: take back the markers of what is damaged and of what was made from it, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..blocks.readers import readers
from ..blocks.stage import BlockTask, Stage
from ..tracking.markers import done_blocks, unmark_blocks
from ..tracking.progress import write_record
from .arrays import StageFindings


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
                if upstream.name in redo and isinstance(upstream, BlockTask):
                    blocks |= readers(redo[upstream.name], upstream, stage)
            blocks &= done_blocks(stage)
        elif found.unsound or any(upstream.name in redo for upstream in stage.upstream):
            blocks[:] = True
        if blocks.any() or is_made_again_as_a_whole(found, redo):
            redo[stage.name] = blocks
    return redo


def is_made_again_as_a_whole(found: StageFindings, redo: dict[str, np.ndarray]) -> bool:
    """Whether what a stage has besides its blocks (a segmentation's lookup table) is to be made again."""
    stage = found.stage
    if not stage.depends_on_whole_upstream():
        return False
    return bool(found.unsound) or any(upstream.name in redo for upstream in stage.upstream)


def requeue(findings: Sequence[StageFindings]) -> dict[str, np.ndarray]:
    """Have the normal commands redo what `blocks_to_redo` names; returns that. No driver may be at work."""
    redo = blocks_to_redo(findings)
    for found in findings:
        if found.stage.name in redo:
            _take_back(found.stage, redo[found.stage.name], is_made_again_as_a_whole(found, redo))
    return redo


def _take_back(stage: Stage, blocks: np.ndarray, whole: bool) -> None:
    """First the statement that the stage is complete, then the markers: interrupted, it can be repeated."""
    write_record(stage, complete=False)
    if isinstance(stage, BlockTask):
        unmark_blocks(stage, blocks)
    if whole:
        stage.discard_whole()
