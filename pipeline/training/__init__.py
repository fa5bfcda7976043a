"""Training of teacher and student: gunpowder pipelines, the training step, checkpoints, validation."""

from ..distillation import affinity_targets, erode_boundaries
from .steps.before_import import require_trainable
from .trainings import (
    describe_distillation,
    describe_paraphraser,
    describe_training,
    train_paraphraser,
    train_student,
    train_teacher,
)

__all__ = [
    "affinity_targets",
    "describe_distillation",
    "describe_paraphraser",
    "describe_training",
    "erode_boundaries",
    "require_trainable",
    "train_paraphraser",
    "train_student",
    "train_teacher",
]
