"""Train a run's teacher, and its student."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from pathlib import Path

from ..command_names import goes_on_by_itself, next_command
from ..config import ParaphraserConfig
from ..engine.tracking.driver_lock import keeps_others_out
from ..errors import UserError
from ..networks import load_network
from ..networks.intensity import tell_other_intensities
from ..run import Run, update_summary
from ..units import counted, duration
from .objective.paraphraser_files import paraphraser_path, read_paraphrasers
from .paraphrasing import ensure_paraphraser, paraphraser_config
from .steps.before_import import require_trainable
from .steps.loop import TrainingProgress, train
from .steps.settings import refuse_changes
from .steps.state import StoredTraining, newest_training
from .steps.training_setup import Training, teacher_checkpoint

logger = logging.getLogger(__name__)

NEXT_SCRIPT = {"teacher": "01_distill.py", "student": "02_predict_blockwise.py"}
"""The script to run after the training of a network."""


@keeps_others_out
def train_teacher(run: Run) -> Path:
    """Train the teacher, or continue its training; a finished one is left alone.

    Args:
        run: the run directory; the sources of its training regions are imported.

    Returns:
        The teacher's checkpoint: the one that `teacher.checkpoint` names, or the newest.

    Raises:
        UserError: the config, the data or the environment does not allow it.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint has been written.
    """
    training = Training(run, "teacher")
    assert training.section is not None
    named = run.config.network_teacher.checkpoint if run.config.network_teacher is not None else None
    if named is not None:
        path = teacher_checkpoint(run)
        assert path is not None
        _, document = load_network(path, training.section.network)
        for source in sorted({region.source for region in run.config.volumes.train}):
            tell_other_intensities(document["training"], path, run.intensity(source), source)
        logger.info("teacher: using %s (teacher.checkpoint), nothing to train", path)
        return path
    return _train_if_unfinished(training)


@keeps_others_out
def train_student(run: Run) -> Path:
    """Train the student, or continue its training; a finished one is left alone.

    It is distilled from the teacher unless `student.distillation` is null. A teacher that is a network, and missing or
    unfinished, is trained first, and so is the paraphraser that graph flow needs.

    Args:
        run: the run directory; the sources of its training regions are imported.

    Returns:
        The student's newest checkpoint.

    Raises:
        UserError: the config, the data or the environment does not allow it.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint has been written.
    """
    student = Training(run, "student", teacher_checkpoint(run) if run.config.student.distillation is not None else None)
    if student.distillation is None or (run.config.teacher is not None and run.config.network_teacher is None):
        return _train_if_unfinished(student)
    student.check_layers()
    if _lacks_files(student) and _is_finished(student):  # what it learnt from may be gone
        return _train_if_unfinished(student)
    if student.teacher is None:
        logger.info("student: there is no teacher yet, training it first")
    with goes_on_by_itself():
        student = Training(run, "student", train_teacher(run))
        paraphraser = ensure_paraphraser(student)
    return _train_if_unfinished(replace(student, paraphraser=paraphraser))


@keeps_others_out
def train_paraphraser(run: Run) -> Path:
    """Train the paraphraser that graph flow needs, or continue its training; a finished one is left alone.

    A teacher that is missing or unfinished is trained first.

    Args:
        run: the run directory; the sources of its training regions are imported.

    Returns:
        The paraphraser's file.

    Raises:
        UserError: the config, the data or the environment does not allow it, or no paraphraser is configured.
        KeyboardInterrupt: Ctrl-C or SIGTERM; what was learnt is saved.
    """
    student = Training(run, "student")
    _require_paraphraser(student)
    student.check_layers()
    with goes_on_by_itself():
        student = Training(run, "student", train_teacher(run))
    path = ensure_paraphraser(student)
    assert path is not None
    return path


def _require_paraphraser(student: Training) -> ParaphraserConfig:
    config = paraphraser_config(student)
    if config is None:
        raise UserError(
            "graph flow is not configured with a paraphraser, so there is none to train; {} takes the defaults",
            "student.distillation.graph_flow",
        )
    return config


def _lacks_files(student: Training) -> bool:
    """Whether something that the student learns from is not there."""
    config = paraphraser_config(student)
    trained_here = config is not None and config.checkpoint is None
    return student.teacher is None or (trained_here and not paraphraser_path(student.run).exists())


def describe_paraphraser(run: Run) -> str:
    """What training the paraphraser would do, in one line, after all checks that need no imported data.

    Raises:
        UserError: the config does not allow it.
    """
    student = Training(run, "student")
    config = _require_paraphraser(student)
    student.check_layers()
    if config.checkpoint is not None:
        return f"paraphraser: {config.checkpoint} is there to be used, nothing to train"
    path = paraphraser_path(run)
    require_trainable(run, "student")
    done = read_paraphrasers(path)["iteration"] if path.exists() else 0
    return f"paraphraser: iterations {done} to {config.iterations}, on {student.device}, into {path.parent}"


def describe_training(run: Run, role: str) -> str:
    """What training a role would do, in one line, after all checks that need no imported data.

    Raises:
        UserError: the config or a checkpoint does not allow it.
    """
    config = run.config
    if role == "teacher" and config.network_teacher is not None and config.network_teacher.checkpoint is not None:
        return f"teacher: {teacher_checkpoint(run)} (teacher.checkpoint) is there to be used, nothing to train"
    teacher = teacher_checkpoint(run) if role == "student" and config.student.distillation is not None else None
    training = Training(run, role, teacher)
    training.check_layers()
    require_trainable(run, role)
    network = training.build_network()
    schedule = training.section.training
    stored = _stored(training)
    done = 0 if stored is None else stored.iteration
    return (
        f"{role}: {training.section.network.name} with {network.parameter_count():,} parameters, iterations {done} to "
        f"{schedule.iterations}, batches of {schedule.batch_size} patches of {tuple(schedule.patch_shape)} on "
        f"{training.device}, into {training.directory}{_what_comes_first(training)}"
    )


def describe_distillation(run: Run) -> list[str]:
    """What `train_student` would do, a line for each network, after all checks that need no imported data.

    Raises:
        UserError: the config or a checkpoint does not allow it.
    """
    student = Training(run, "student", teacher_checkpoint(run) if run.config.student.distillation is not None else None)
    taught = student.distillation is not None and run.config.network_teacher is not None
    needs_no_teacher = _lacks_files(student) and _is_finished(student)
    teacher = [describe_training(run, "teacher")] if taught and not needs_no_teacher else []
    return [*teacher, describe_training(run, "student")]


def _what_comes_first(training: Training) -> str:
    config = paraphraser_config(training)
    if config is None or config.checkpoint is not None or paraphraser_path(training.run).exists():
        return ""
    return f"; its paraphraser comes first, with {counted(config.iterations, 'iteration')}"


def _train_if_unfinished(training: Training) -> Path:
    role, total = training.role, training.section.training.iterations
    stored = _stored(training)
    done = 0 if stored is None else stored.iteration
    if stored is not None and done >= total:
        logger.info("%s: finished already, %s has %s; skipped", role, stored.path, counted(done, "iteration"))
        return stored.path
    if stored is not None:
        logger.info("%s: continuing after iteration %d of %d", role, done, total)
    training.run.save_config()
    began = time.monotonic()
    path, progress = train(training, stored)
    seconds = time.monotonic() - began
    update_summary(training.run, training={role: {"iterations": total, **asdict(progress)}})
    _report(training, path, total - done, seconds, progress)
    return path


def _is_finished(training: Training) -> bool:
    stored = _stored(training)
    return stored is not None and stored.iteration >= training.section.training.iterations


def _stored(training: Training) -> StoredTraining | None:
    """The checkpoint to continue from.

    Raises:
        UserError: it was trained with other settings.
    """
    stored = newest_training(training.directory)
    if stored is not None:
        refuse_changes(stored.settings, training.settings, stored.path)
    return stored


def _report(training: Training, path: Path, iterations: int, seconds: float, progress: TrainingProgress) -> None:
    from ..evaluation import format_score

    best = progress.best
    score = f", best validation {format_score(best)} at iteration {best['iteration']:,}" if best else ""
    following = next_command(NEXT_SCRIPT[training.role], training.run.directory / "config.json")
    logger.info(
        "%s: wrote %s, %s in %s (%.3g/s)%s%s",
        training.role,
        path,
        counted(iterations, "iteration"),
        duration(seconds),
        iterations / seconds,
        score,
        f"; next: {following}" if following else "",
    )
