"""Train a run's teacher, and its student."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path

from ..networks import load_network
from ..run import Run, update_summary
from .loop import Progress, train
from .plan import Training, teacher_checkpoint
from .settings import refuse_changes
from .state import StoredTraining, newest_training

logger = logging.getLogger(__name__)

NEXT = {"teacher": "workflows/01_distill.py", "student": "workflows/02_predict_blockwise.py"}


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
    named = run.config.teacher.checkpoint if run.config.teacher is not None else None
    if named is not None:
        path = teacher_checkpoint(run)
        assert path is not None
        load_network(path, training.section.network)
        logger.info("teacher: using %s (teacher.checkpoint), nothing to train", path)
        return path
    return _train_if_unfinished(training)


def train_student(run: Run) -> Path:
    """Train the student, or continue its training; a finished one is left alone.

    It is distilled from the teacher unless `student.distillation` is null. A teacher that is missing or unfinished is
    trained first.

    Args:
        run: the run directory; the sources of its training regions are imported.

    Returns:
        The student's newest checkpoint.

    Raises:
        UserError: the config, the data or the environment does not allow it.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint has been written.
    """
    if run.config.student.distillation is None:
        return _train_if_unfinished(Training(run, "student"))
    if teacher_checkpoint(run) is None:
        student = Training(run, "student")
        if _is_finished(student):  # its teacher may be gone
            return _train_if_unfinished(student)
        logger.info("student: there is no teacher yet, training it first")
    return _train_if_unfinished(Training(run, "student", train_teacher(run)))


def describe(run: Run, role: str) -> str:
    """What training a role would do, in one line, after all checks that need no imported data.

    Raises:
        UserError: the config or a checkpoint does not allow it.
    """
    teacher = teacher_checkpoint(run) if role == "student" and run.config.student.distillation is not None else None
    training = Training(run, role, teacher)
    network = training.build_network()
    schedule = training.section.training
    stored = _stored(training)
    done = 0 if stored is None else stored.iteration
    return (
        f"{role}: {training.section.network.name} with {network.parameter_count():,} parameters, iterations {done} to "
        f"{schedule.iterations}, batches of {schedule.batch_size} patches of {tuple(schedule.patch_shape)} on "
        f"{training.device}, into {training.directory}"
    )


def _train_if_unfinished(training: Training) -> Path:
    role, total = training.role, training.section.training.iterations
    stored = _stored(training)
    done = 0 if stored is None else stored.iteration
    if stored is not None and done >= total:
        logger.info("%s: finished already, %s has %d iterations; skipped", role, stored.path, done)
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


def _report(training: Training, path: Path, iterations: int, seconds: float, progress: Progress) -> None:
    from ..evaluation import told

    best = progress.best
    score = f", best validation {told(best)} at iteration {best['iteration']}" if best else ""
    logger.info(
        "%s: wrote %s, %d iterations in %.0f s (%.2f per second)%s; next: python %s %s",
        training.role,
        path,
        iterations,
        seconds,
        iterations / seconds,
        score,
        NEXT[training.role],
        training.run.directory / "config.json",
    )
