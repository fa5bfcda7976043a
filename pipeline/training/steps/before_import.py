"""What would keep a training from its first step, found before the data are imported for it."""

from __future__ import annotations

from funlib.geometry import Coordinate

from ...run import Run
from ..objective.embedding import embedded_part
from ..sampling.before_import import require_regions
from ..sampling.regions import require_any_region
from .state import newest_training
from .training_setup import Training


def require_trainable(run: Run, role: str) -> None:
    """Refuse what the training of a role would refuse, as far as it can be known before anything is imported. Of a
    finished training nothing is asked: what it learnt from may be gone. A teacher that is given is not trained.

    Args:
        run: the run.
        role: `teacher` or `student`.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: the config, the metadata of the sources, affinities on disk, or a module do not allow it.
    """
    given = run.config.network_teacher.checkpoint if run.config.network_teacher is not None else None
    if role == "teacher" and given is not None:
        return
    training = Training(run, role)
    schedule = training.section.training
    stored = newest_training(training.directory)
    if stored is not None and stored.iteration >= schedule.iterations:
        return
    require_any_region(run.config)
    training.require_module()
    patch = Coordinate(schedule.patch_shape)
    part = embedded_part(training.build_network(), patch, f"{role}.training.patch_shape")
    require_regions(run, part.shape, bool(training.unlabelled_samples), training.stored_offsets)
