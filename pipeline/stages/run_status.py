"""The status of a run with its stages from raw to segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..engine.blocks.stage import Stage
from ..engine.status.model import RunStatus, StageState, StageStatus
from ..engine.status.pace import History
from ..engine.status.read_run import read_run_status
from ..run import Run
from .by_script import known_stages
from .segment import SegmentTask


def read_status(run: Run, config: Path, history: History | None = None) -> RunStatus:
    """The status of a run now, see `engine.status.read_run.read_run_status`.

    Raises:
        UserError: the config asks for what there cannot be, or files of the run directory are damaged.
    """
    return read_run_status(run, _StagesOfRun(), config, history)


class _StagesOfRun:
    """The stages from raw to segmentation."""

    def known(self, run: Run) -> list[Stage]:
        """Those whose tasks are known by now."""
        return known_stages(run)

    def to_come(self, run: Run, known: Sequence[Stage]) -> list[StageStatus]:
        """The segmentation at the best threshold, until that is chosen."""
        if run.config.segment.thresholds != "best" or any(stage.stage == SegmentTask.stage for stage in known):
            return []
        return [
            StageStatus(
                SegmentTask.stage,
                SegmentTask.stage,
                SegmentTask.script,
                str(run.volume / "segmentation"),
                StageState.NOT_BEGUN,
                "the best threshold is chosen when the graph is there",
            )
        ]
