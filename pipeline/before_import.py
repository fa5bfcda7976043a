"""What a whole run refuses before it imports anything, so that no mistake is told only after hours."""

from __future__ import annotations

from .run import Run


def require_before_import(run: Run) -> None:
    """Refuse what training and prediction would refuse, as far as the config, checkpoints and metadata of sources tell.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: see `training.require_trainable` and `require_predictable`.
    """
    from .stages.chosen_checkpoint import require_predictable

    roles = run.config.networks_to_train
    if not roles:
        require_predictable(run)
        return
    from . import training  # not needed by runs that train nothing

    for role in roles:
        training.require_trainable(run, role)
