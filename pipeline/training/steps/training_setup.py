"""Everything a training needs, checked before the first step: network, geometry, regions, device, teacher."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from funlib.geometry import Coordinate

from ...config import DistillationConfig, Offset, StudentConfig, TeacherConfig, compared_offsets
from ...errors import UserError
from ...networks import EmbeddingNetwork, build_network, choose_autocast, choose_device, load_network
from ...run import Run
from ..objective.distiller import Distiller
from ..objective.embedding import embedded_part
from ..objective.flow import flow_channels
from ..objective.objective import Objective
from ..objective.paraphraser_files import load_paraphrasers
from ..objective.teacher_instances import TeacherInstances
from ..objective.views import View, in_sections
from ..sampling.regions import check_regions, training_regions, unlabelled_regions
from ..sampling.samples import Sampling
from .settings import training_settings
from .state import newest_checkpoint


@dataclass(frozen=True)
class Training:
    """One training of a run.

    Attributes:
        run: the run directory and its config.
        role: `teacher` or `student`.
        teacher: checkpoint that a student is distilled from; None trains on labels alone.
        paraphraser: file of the trained paraphrasers, for graph flow.
    """

    run: Run
    role: str
    teacher: Path | None = None
    paraphraser: Path | None = None

    @property
    def section(self) -> TeacherConfig | StudentConfig:
        """The config section of the role.

        Raises:
            UserError: the config has no teacher.
        """
        section = self.run.config.role(self.role)
        if section is None:
            raise UserError("there is no teacher section to train by; add one", "teacher")
        return section

    @property
    def distillation(self) -> DistillationConfig | None:
        """The student's distillation settings; None for a teacher, or a student that learns alone."""
        return self.run.config.student.distillation if self.role == "student" else None

    @property
    def directory(self) -> Path:
        """Folder of checkpoints, curves and logs."""
        return self.run.network_directory(self.role)

    @cached_property
    def settings(self) -> dict[str, str]:
        """What decides the weights; see `training_settings`."""
        return training_settings(self.run.config, self.role, self.teacher, self.paraphraser)

    @cached_property
    def intensities(self) -> dict[str, dict[str, Any]]:
        """Of each source that is trained on, the intensities that are black and white, as JSON values."""
        volumes = self.run.config.volumes
        regions = (*volumes.train, *(volumes.unlabelled if self.unlabelled_samples else ()))
        return {name: self.run.intensity(name).as_json() for name in sorted({region.source for region in regions})}

    @cached_property
    def device(self) -> torch.device:
        """The device that the network trains on."""
        return choose_device(self.section.training.device, f"{self.role}.training.device")

    @cached_property
    def autocast(self) -> torch.dtype | None:
        """Reduced precision of the networks, or None for float32."""
        return choose_autocast(self.section.training.autocast, self.device)

    @property
    def unlabelled_samples(self) -> int:
        """Samples of each batch that carry no labels; a teacher learns from labels alone."""
        if self.role == "teacher" or not self.run.config.volumes.unlabelled:
            return 0
        return self.run.config.student.unlabelled_samples

    @property
    def graph_offsets(self) -> tuple[Offset, ...]:
        """Offsets of the affinities in which a student is compared with its teacher."""
        return compared_offsets(self.run.config)

    def sampling(self, network: EmbeddingNetwork) -> Sampling:
        """How batches for a network are made.

        Raises:
            UserError: the network does not take the patch, or the regions cannot fill it.
        """
        schedule = self.section.training
        patch = Coordinate(schedule.patch_shape)
        output = embedded_part(network, patch, f"{self.role}.training.patch_shape")
        unlabelled = unlabelled_regions(self.run) if self.unlabelled_samples else []
        check_regions(training_regions(self.run), unlabelled, output.shape, self.run.config.augment.transpose_all)
        return Sampling(self.run, schedule, patch, output, self.unlabelled_samples)

    def build_network(self) -> EmbeddingNetwork:
        """A fresh network on the CPU, from the config's seed."""
        torch.manual_seed(self.run.config.seed)
        return build_network(self.section.network)

    def objective(self, network: EmbeddingNetwork) -> Objective:
        """The losses on the training's device, with the teacher if there is one.

        Raises:
            UserError: the teacher's checkpoint cannot be used, or it takes other patches than the student.
        """
        distiller = None if self.distillation is None else self._distiller(network, self.distillation)
        offsets = self.run.config.student.offsets if self.role == "student" else None
        return Objective(self.run.config.targets, network, distiller, offsets).to(self.device)

    def views(self, network: EmbeddingNetwork) -> tuple[View, View]:
        """The student and its trained teacher, which is moved to the training's device.

        Raises:
            UserError: the teacher's checkpoint cannot be used, or it takes other patches than the student.
        """
        assert self.teacher is not None and self.run.config.teacher is not None
        teacher, _ = load_network(self.teacher, self.run.config.teacher.network)
        patch = Coordinate(self.section.training.patch_shape)
        student_view, teacher_view = (
            View(one, embedded_part(one, patch, "student.training.patch_shape")) for one in (network, teacher)
        )
        teacher.eval().requires_grad_(False).to(self.device)
        return student_view, teacher_view

    def compares_sections(self, student: View, teacher: View) -> bool:
        """Whether student and teacher are compared section by section."""
        return self.run.config.volumes.images or in_sections(self.graph_offsets, student, teacher)

    def check_layers(self) -> None:
        """Refuse layers that cannot be compared by graph flow, before anything is trained for it.

        Raises:
            UserError: see `flow_channels`.
        """
        run, flow = self.run.config, None if self.distillation is None else self.distillation.graph_flow
        if flow is not None and run.teacher is not None:
            flow_channels(flow, build_network(run.student.network), build_network(run.teacher.network))

    def _distiller(self, network: EmbeddingNetwork, config: DistillationConfig) -> Distiller:
        run, views = self.run.config, self.views(network)
        images = self.compares_sections(*views)
        paraphrasers, instances = None, None
        if config.graph_flow is not None:
            channels = flow_channels(config.graph_flow, network, views[1].network)
            if self.paraphraser is not None:
                paraphrasers = load_paraphrasers(self.paraphraser, channels, 2 if images else 3, self.settings)
                paraphrasers.to(self.device)
        if self.unlabelled_samples and config.unlabelled.instances != "off":
            voxel_size = training_regions(self.run)[0].raw.voxel_size
            instances = TeacherInstances(run, self.unlabelled_samples, voxel_size)
        return Distiller(
            config,
            self.graph_offsets,
            *views,
            self.autocast,
            run.seed,
            images,
            paraphrasers=paraphrasers,
            instances=instances,
        )


def teacher_checkpoint(run: Run) -> Path | None:
    """The checkpoint that the config names, or the newest of the run's teacher, or None.

    Raises:
        UserError: the named one does not exist.
    """
    named = None if run.config.teacher is None else run.config.teacher.checkpoint
    if named is None:
        return newest_checkpoint(run.network_directory("teacher"))
    path = Path(named).expanduser()
    for candidate in (path, run.directory / path):
        if candidate.is_file():
            return candidate
    raise UserError(f"there is no checkpoint {named}", "teacher.checkpoint")
