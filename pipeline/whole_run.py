"""A whole run, from raw to a segmentation: what would end it is refused first, before hours of importing."""

from __future__ import annotations

from .engine.executors.run import require_executor
from .run import Run
from .stages.by_script import run_chain, segment
from .stages.chosen_checkpoint import require_predictable
from .stages.class_volume import require_class_volume
from .stages.importing import ensure_imported


def run_to_segmentation(run: Run, overwrite: bool) -> bool:
    """All steps of a run before the scores; whether every block is done.

    Args:
        run: the run.
        overwrite: redo blocks that were made with other settings or inputs, instead of refusing to mix.

    Raises:
        UserError: the config, the data or the environment does not allow it.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the same call continues.
    """
    require_executor(run)
    require_before_import(run)
    ensure_imported(run)
    require_class_volume(run)
    train_networks(run)
    return run_chain(run, overwrite) and segment(run, overwrite)


def require_before_import(run: Run) -> None:
    """Refuse what training and prediction would refuse, as far as the config, checkpoints and metadata of sources tell.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: see `training.require_trainable` and `require_predictable`.
    """
    roles = run.config.networks_to_train
    if not roles:
        require_predictable(run)
        return
    from . import training  # not needed by runs that train nothing

    for role in roles:
        training.require_trainable(run, role)


def train_networks(run: Run) -> None:
    """Train what prediction needs and is missing; a student that is distilled sees to its teacher."""
    roles = run.config.networks_to_train
    if roles:
        from . import training  # not needed by runs that train nothing

        (training.train_teacher if roles[-1] == "teacher" else training.train_student)(run)
