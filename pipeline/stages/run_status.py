"""The status of a run with its trainings, and its stages from raw to segmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..checkpoints import newest_iteration
from ..command_names import SCRIPTS
from ..engine.blocks.stage import Stage
from ..engine.status.model import RunStatus, StageState, StageStatus
from ..engine.status.pace import History
from ..engine.status.read_run import read_run_status
from ..engine.status.read_training import KnownTraining
from ..engine.tracking.training_record import read_training_record
from ..run import Run
from .by_script import known_stages
from .segment import SegmentTask


def read_status(run: Run, config: Path, history: History | None = None, settings: Sequence[str] = ()) -> RunStatus:
    """The status of a run now, see `engine.status.read_run.read_run_status`.

    Raises:
        UserError: the config asks for what there cannot be, or files of the run directory are damaged.
    """
    return read_run_status(run, _StagesOfRun(), config, history, settings)


class _StagesOfRun:
    """The trainings, and the stages from raw to segmentation."""

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

    def trainings(self, run: Run) -> list[KnownTraining]:
        """Those of the networks that predict and teach, and of what stands between them."""
        return [
            training
            for training, is_needed in _possible_trainings(run)
            if is_needed or read_training_record(training.directory) is not None
        ]


def _possible_trainings(run: Run) -> Iterator[tuple[KnownTraining, bool]]:
    """All trainings that the config describes, and whether the run needs them."""
    config, needed = run.config, run.config.networks_to_train
    teacher, distillation = config.network_teacher, config.student.distillation
    if teacher is not None:
        is_needed = "teacher" in needed and teacher.checkpoint is None
        yield _of_network(run, "teacher", "train-teacher", teacher.training.iterations), is_needed
    flow = distillation.graph_flow if distillation is not None else None
    if flow is not None and flow.paraphraser is not None:
        script, directory = SCRIPTS["train-paraphraser"], run.directory / "paraphraser"
        is_needed = "student" in needed and flow.paraphraser.checkpoint is None
        yield KnownTraining("paraphraser", script, directory, flow.paraphraser.iterations, None), is_needed
    yield _of_network(run, "student", "distill", config.student.training.iterations), "student" in needed


def _of_network(run: Run, role: str, step: str, iterations: int) -> KnownTraining:
    directory = run.network_directory(role)
    return KnownTraining(role, SCRIPTS[step], directory, iterations, newest_iteration(directory))
