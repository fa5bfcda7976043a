"""Which checkpoint predicts: as configured, ready-made, or the newest of the network that the config names."""

from __future__ import annotations

from pathlib import Path

from ..checkpoints import latest_checkpoint
from ..config.pretrained import pretrained_name, pretrained_weights
from ..errors import UserError
from ..run import Run


def chosen_checkpoint(run: Run) -> Path:
    """The checkpoint that predicts: as configured, or the newest of the network's folder.

    Raises:
        UserError: there is none.
    """
    configured = run.config.predict.checkpoint
    if configured is None:
        return latest_checkpoint(run.network_directory(run.config.predict.network))
    if (name := pretrained_name(configured)) is not None:
        return pretrained_weights(name)
    given = Path(configured).expanduser()
    candidates = [given, run.directory / given]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise UserError(f"there is no checkpoint {configured}", "predict.checkpoint")
