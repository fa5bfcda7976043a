"""The whole config of a run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from .blockwise import BlockwiseSections
from .training import AugmentConfig, StudentConfig, TargetsConfig, TeacherConfig
from .volumes import VolumesConfig


class Config(BlockwiseSections):
    """One JSON file that takes a run from labelled raw to a scored segmentation."""

    run_directory: Annotated[str, Field(min_length=1)]
    """Everything the run writes goes here. Relative to the current directory; `.` is the folder of the config file, so
    that a run directory can be moved and continued from its own config.json."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random."""
    volumes: VolumesConfig
    """Data."""
    teacher: TeacherConfig | None = None
    """The heavy network. Needed to distil."""
    student: StudentConfig
    """The light network."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of training samples."""
    targets: TargetsConfig = TargetsConfig()
    """Supervision."""

    @model_validator(mode="after")
    def _distillation_has_a_teacher(self) -> Config:
        if self.student.distillation is not None and self.teacher is None:
            raise ValueError("student.distillation needs a teacher section; set it to null to train the student alone")
        if self.predict.network == "teacher" and self.teacher is None:
            raise ValueError("predict.network is teacher, but there is no teacher section")
        return self
