"""Training of teacher and student: gunpowder pipelines, the training step, checkpoints, validation."""

from .targets import affinity_targets, erode_boundaries
from .trainings import describe, train_student, train_teacher

__all__ = ["affinity_targets", "describe", "erode_boundaries", "train_student", "train_teacher"]
