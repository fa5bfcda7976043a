"""The whole config of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from .base import IN_PLANE_NEIGHBOURS, NEAREST_NEIGHBOURS, Offset
from .blockwise import BlockwiseSections
from .networks import NetworkConfig, sees_one_section
from .plain_affinities import missing_affinities
from .teachers import AffinitiesTeacherConfig, AnyTeacherConfig, TeacherConfig
from .training import AugmentConfig, StudentConfig, TargetsConfig
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
    teacher: AnyTeacherConfig | None = None
    """Who teaches the student: `kind` is a `network` (default), `affinities` on disk, or a `torchscript` module. Needed
    to distil."""
    student: StudentConfig
    """The light network. A ready-made student (`predict.checkpoint`) brings its own."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of training samples."""
    targets: TargetsConfig = TargetsConfig()
    """Supervision."""

    @property
    def neighbours(self) -> tuple[Offset, ...]:
        """Offsets of the nearest neighbours, the first of `predict.offsets`: three in a volume, two in images."""
        return IN_PLANE_NEIGHBOURS if self.volumes.images else NEAREST_NEIGHBOURS

    @property
    def small_segments(self) -> tuple[int, float] | None:
        """Voxels below which a segment is small, and the largest merge score that joins a small one; None if size
        decides nothing.
        """
        small = self.segment.small_segments
        return None if small is None else (small.below, min(small.threshold, self.agglomerate.maximum_score))

    def role(self, name: str) -> TeacherConfig | StudentConfig | None:
        """The section of a network, `teacher` or `student`; None if the config has none."""
        return self.network_teacher if name == "teacher" else self.student

    @property
    def network_teacher(self) -> TeacherConfig | None:
        """The teacher, if it is a network of ours."""
        return self.teacher if isinstance(self.teacher, TeacherConfig) else None

    @property
    def predicting(self) -> TeacherConfig | StudentConfig:
        """The section of the network that predicts."""
        section = self.role(self.predict.network)
        assert section is not None, "validated below"
        return section

    @property
    def networks_to_train(self) -> tuple[str, ...]:
        """The networks that prediction needs trained, in order; none if a checkpoint is given."""
        if self.predict.checkpoint is not None or not self.volumes.train:
            return ()
        if self.predict.network == "teacher":
            return ("teacher",)
        alone = self.student.distillation is None or self.network_teacher is None
        return ("student",) if alone else ("teacher", "student")

    @model_validator(mode="after")
    def _fragments_have_their_affinities(self) -> Config:
        neighbours = self.neighbours
        if tuple(self.predict.offsets[: len(neighbours)]) != neighbours:
            listed = ", ".join(f"[{z},{y},{x}]" for z, y, x in neighbours)
            condition = " with volumes.images" if self.volumes.images else ""
            raise ValueError(f"predict.offsets must start with {listed}{condition}")
        if self.fragments.method == "mutex_watershed" and len(self.predict.offsets) <= len(neighbours):
            raise ValueError("fragments.method mutex_watershed needs long-range offsets in predict.offsets")
        return self

    @model_validator(mode="after")
    def _images_stay_apart(self) -> Config:
        if self.volumes.images:
            refuse_what_joins_images(self)
        return self

    @model_validator(mode="after")
    def _student_learns_from_what_there_is(self) -> Config:
        unknown = [list(offset) for offset in self.student.offsets or () if offset not in self.targets.offsets]
        if unknown:
            raise ValueError(f"student.offsets names {unknown[0]}, which is not in targets.offsets")
        return self

    @model_validator(mode="after")
    def _networks_give_what_is_asked_of_them(self) -> Config:
        for reason in missing_affinities(self):
            raise ValueError(reason)
        return self

    @model_validator(mode="after")
    def _distillation_has_a_teacher(self) -> Config:
        if self.student.distillation is not None and self.teacher is None:
            raise ValueError("student.distillation needs a teacher section; set it to null to train the student alone")
        if self.predict.network == "teacher" and self.teacher is None:
            raise ValueError("predict.network is teacher, but there is no teacher section")
        if self.predict.network == "teacher" and self.network_teacher is None:
            raise ValueError("predict.network is teacher, which only a teacher of the kind network can be")
        return self

    @model_validator(mode="after")
    def _sections_have_affinities_between_them(self) -> Config:
        distillation = self.student.distillation
        if distillation is None or not distillation.cross_section_weight:
            return self
        if distillation.cross_section_target == "labels" and NEAREST_NEIGHBOURS[0] not in self.targets.offsets:
            raise ValueError(
                "student.distillation.cross_section_weight needs the offset [-1, 0, 0] in targets.offsets; add it, or"
                " set cross_section_target to teacher"
            )
        return self

    @model_validator(mode="after")
    def _given_affinities_can_teach(self) -> Config:
        if self.student.distillation is None or self.teacher is None or self.network_teacher is not None:
            return self
        if self.student.distillation.teacher_learning_rate is not None:
            raise ValueError(
                "student.distillation.teacher_learning_rate: only a teacher of the kind network goes on learning; set"
                " it to null"
            )
        needed = self.student.distillation.needs_embeddings
        if needed:
            raise ValueError(
                f"student.distillation.{needed[0]} compares embeddings, which only teacher.kind network has;"
                f" set it to {needed[1]}"
            )
        if isinstance(self.teacher, AffinitiesTeacherConfig):
            _refuse_what_bends_affinities(self.augment)
            sources = {region.source for region in (*self.volumes.train, *self.volumes.unlabelled)}
            lacking = sorted(sources - self.teacher.affinities.keys())
            if lacking:
                raise ValueError(
                    f"teacher.affinities has no entry for the source {lacking[0]!r}, which trains the student"
                )
        return self

    @model_validator(mode="after")
    def _unlabelled_volumes_are_distilled(self) -> Config:
        distillation = self.student.distillation
        if not self.volumes.unlabelled:
            return self
        if distillation is None:
            raise ValueError(
                "volumes.unlabelled needs student.distillation: without a teacher nothing can be learnt from raw alone"
            )
        samples, unlabelled = self.student.training.batch_size, self.student.unlabelled_samples
        if not 0 < unlabelled < samples:
            raise ValueError(
                f"student.distillation.unlabelled.share: {distillation.unlabelled.share} of a batch_size of {samples} "
                f"is {unlabelled} samples; of labelled and of unlabelled ones there must be one at least"
            )
        if distillation.unlabelled.instances != "off" and not distillation.has_instance_terms:
            raise ValueError(
                "student.distillation.unlabelled.instances is for the weights of node, edge and inter_edge, which are "
                "all 0; set it to off"
            )
        return self


def _refuse_what_bends_affinities(augment: AugmentConfig) -> None:
    """Make sure that augmentation moves voxels that lie apart by an offset to such that do.

    Raises:
        ValueError: names what does not.
    """
    because = "which no affinity on disk can follow (teacher.kind affinities)"
    if augment.elastic is not None and augment.elastic.probability > 0:
        raise ValueError(f"augment.elastic bends and turns what lies between two voxels, {because}; set it to null")
    if augment.shift_sections > 0 and augment.shift_voxels > 0:
        raise ValueError(f"augment.shift_sections moves sections against each other, {because}; set it to 0")


def refuse_what_joins_images(config: Config) -> None:
    """Make sure that nothing in a config of separate images reaches from one section to the next.

    Raises:
        ValueError: names the first key that does, and what would be right.
    """
    for reason in _reasons(config):
        raise ValueError(f"{reason}, because volumes.images says that the sections are separate images")


def _reasons(config: Config) -> Iterator[str]:
    yield from _offsets(config)
    yield from _networks(config)
    if config.targets.erosion > 0 and not config.targets.erosion_in_plane:
        yield "targets.erosion_in_plane must be true"
    if config.agglomerate.method != "global":
        yield "agglomerate.method must be global"
    if config.student.distillation is not None and config.student.distillation.cross_section_weight:
        yield "student.distillation.cross_section_weight must be 0"
    augment = config.augment
    if augment.transpose_all:
        yield "augment.transpose_all must be false"
    if augment.elastic is not None and augment.elastic.jitter[0] > 0:
        yield "augment.elastic.jitter must be 0 along z"
    for name in ("shift_sections", "missing_sections"):
        if getattr(augment, name) > 0:
            yield f"augment.{name} must be 0"


def _offsets(config: Config) -> Iterator[str]:
    distillation = config.student.distillation
    given = {
        "predict.offsets": config.predict.offsets,
        "targets.offsets": config.targets.offsets,
        "student.distillation.offsets": (distillation and distillation.offsets) or (),
        "student.network.affinity_offsets": config.student.network.affinity_offsets,
        "teacher.network.affinity_offsets": (
            () if config.network_teacher is None else config.network_teacher.network.affinity_offsets
        ),
    }
    for name, offsets in given.items():
        for offset in offsets:
            if offset[0] != 0:
                yield f"{name} must have z = 0, not {list(offset)}"


def _networks(config: Config) -> Iterator[str]:
    networks: dict[str, NetworkConfig] = {"student": config.student.network}
    if config.network_teacher is not None:
        networks["teacher"] = config.network_teacher.network
    for role, network in networks.items():
        if not sees_one_section(network):
            yield (
                f"{role}.network must be a residual_unet with dimensions 2 (or a section_unet with sections 1 and a"
                " stem of 1 along z)"
            )
