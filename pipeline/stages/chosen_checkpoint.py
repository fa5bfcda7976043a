"""Which checkpoint predicts: as configured, ready-made, or the newest of the network that the config names."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..checkpoints import latest_checkpoint, newest_iteration
from ..command_names import SCRIPTS, command_line
from ..config.pretrained import pretrained_name, pretrained_weights
from ..datasets import foresee, is_ready
from ..errors import UserError
from ..run import Run

logger = logging.getLogger(__name__)


def chosen_checkpoint(run: Run) -> Path:
    """The checkpoint that predicts: as configured, of a teacher also for its training, or the newest of the network's
    folder.

    Raises:
        UserError: there is none.
    """
    named = _named(run)
    if named is None:
        return latest_checkpoint(run.network_directory(run.config.predict.network))
    configured, where = named
    if (name := pretrained_name(configured)) is not None:
        return pretrained_weights(name)
    given = Path(configured).expanduser()
    candidates = [given, run.directory / given]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise UserError(f"there is no checkpoint {configured}", where)


def _named(run: Run) -> tuple[str, str] | None:
    """The checkpoint that the config names for prediction, and the path of the key; None if the run has its own."""
    config, teacher = run.config.predict, run.config.network_teacher
    if config.checkpoint is not None:
        return config.checkpoint, "predict.checkpoint"
    if config.network == "teacher" and teacher is not None and teacher.checkpoint is not None:
        return teacher.checkpoint, "teacher.checkpoint"
    return None


def require_predictable(run: Run) -> None:
    """Make sure, before the volume is imported, that there is a network to predict it with, and that they fit. Once it
    is, the stages themselves ask.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: the checkpoint is missing, broken, or of another network than the config describes; or the volume is
            missing, or too small.
    """
    from ..networks import load_network
    from ..networks.fitting import check_context

    if is_ready(run, run.config.volumes.segment.source):
        return  # what was predicted with a checkpoint that is gone can be used all the same
    network, _ = load_network(chosen_checkpoint(run), run.config.predicting.network)
    with foresee(run, run.config.volumes.segment.source) as source:
        if source is not None:
            check_context(run, network, source.shape)


def tell_doubts(run: Run, checkpoint: Path, training: dict[str, Any]) -> None:
    """Warn of what makes a checkpoint doubtful: one that was named may know other intensities or voxels than those of
    the volume, the run's own may not have been trained to the end.

    Args:
        run: the run.
        checkpoint: that predicts.
        training: what it tells of its training.
    """
    from ..networks.fitting import tell_other_nanometres
    from ..networks.intensity import tell_other_intensities

    named, source = _named(run), run.config.volumes.segment.source
    if named is None:
        _tell_unfinished(run)
    else:
        called = named[0] if pretrained_name(named[0]) is not None else checkpoint  # not where the package lies
        tell_other_intensities(training, called, run.intensity(source), source)
        tell_other_nanometres(named[0], run.source(source))


def _tell_unfinished(run: Run) -> None:
    role, wanted = run.config.predict.network, run.config.predicting.training.iterations
    learnt = newest_iteration(run.network_directory(role))
    if learnt < wanted:
        script = SCRIPTS["train-teacher" if role == "teacher" else "distill"]
        following = command_line(script, run.directory / "config.json")
        logger.warning(
            "the %s has learnt %s of %s iterations; %s goes on", role, f"{learnt:,}", f"{wanted:,}", following
        )
