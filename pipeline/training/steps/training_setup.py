"""Everything a training needs, checked before the first step: network, geometry, regions, device, teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from funlib.geometry import Coordinate

from ...config import (
    AffinitiesTeacherConfig,
    DistillationConfig,
    Offset,
    StudentConfig,
    TargetsConfig,
    TeacherConfig,
    TorchscriptTeacherConfig,
    compared_offsets,
)
from ...distillation import PREVIOUS_SECTION
from ...errors import UserError
from ...networks import EmbeddingNetwork, build_network, choose_autocast, choose_device, load_network
from ...run import Run, file_digest
from ..objective.affinity_distiller import AffinityDistiller
from ..objective.descriptor_head import DescriptorHead
from ..objective.distiller import Distiller
from ..objective.embedding import embedded_part
from ..objective.flow import flow_channels
from ..objective.given_teachers import ScriptedTeacher, StoredTeacher, require_offsets, require_patch, script_file
from ..objective.label_loss import LabelLoss
from ..objective.objective import Objective
from ..objective.paraphraser_files import load_paraphrasers
from ..objective.teacher_instances import TeacherInstances
from ..objective.views import View, in_sections
from ..sampling.affinity_files import identities, require_affinities
from ..sampling.descriptor_node import Described
from ..sampling.regions import check_regions, require_any_region, training_regions, unlabelled_regions
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
            if self.run.config.teacher is not None:
                raise UserError(f"a teacher of the kind {self.run.config.teacher.kind} is not trained", "teacher.kind")
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
        given = self.distillation is not None and self.run.config.network_teacher is None
        teacher = given_teacher(self.run) if given else {}
        return training_settings(self.run.config, self.role, self.teacher, self.paraphraser, teacher)

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

    @property
    def stored_offsets(self) -> tuple[Offset, ...]:
        """The same, if affinities on disk are what teaches; otherwise none."""
        stored = self.distillation is not None and isinstance(self.run.config.teacher, AffinitiesTeacherConfig)
        return self.graph_offsets if stored else ()

    def sampling(self, network: EmbeddingNetwork) -> Sampling:
        """How batches for a network are made.

        Raises:
            UserError: the network does not take the patch, or the regions cannot fill it.
        """
        require_any_region(self.run.config)
        schedule = self.section.training
        patch = Coordinate(schedule.patch_shape)
        output = embedded_part(network, patch, f"{self.role}.training.patch_shape")
        unlabelled = unlabelled_regions(self.run) if self.unlabelled_samples else []
        regions = training_regions(self.run)
        check_regions(regions, unlabelled, output.shape, self.run.config.augment.transpose_all)
        if self.stored_offsets:
            volumes = self.run.config.volumes
            sections = (*volumes.train, *(volumes.unlabelled if unlabelled else ()))
            for section, region in zip(sections, (*regions, *unlabelled), strict=True):
                require_affinities(self.run, section.source, self.stored_offsets, region.box)
        described = self._described(regions[0].raw.voxel_size)
        return Sampling(self.run, schedule, patch, output, self.unlabelled_samples, self.stored_offsets, described)

    def _described(self, voxel_size: Sequence[float]) -> Described | None:
        """The local shape descriptors that the network learns, if it learns any.

        Raises:
            UserError: y and x are exchanged, though a voxel has other extents along them.
        """
        config = self.run.config
        descriptors = config.targets.descriptors_of(self.role)
        if descriptors is None:
            return None
        z, y, x = (descriptors.sigma / extent for extent in voxel_size)
        if y != x and config.augment.transpose_yx:
            raise UserError(
                "voxels are not as long along y as along x, which descriptors (targets.descriptors) cannot follow if y"
                " and x are exchanged; set it to false",
                "augment.transpose_yx",
            )
        return Described((z, y, x), config.volumes.images)

    def build_network(self) -> EmbeddingNetwork:
        """A fresh network on the CPU, from the config's seed."""
        torch.manual_seed(self.run.config.seed)
        return build_network(self.section.network)

    def objective(self, network: EmbeddingNetwork) -> Objective:
        """The losses on the training's device, with the teacher if there is one.

        Raises:
            UserError: the teacher's checkpoint cannot be used, or it takes other patches than the student.
        """
        distiller: Distiller | AffinityDistiller | None = None
        if self.distillation is not None:
            given = self.run.config.network_teacher is None
            distiller = (self._affinity_distiller if given else self._distiller)(network, self.distillation)
        offsets = self.run.config.student.offsets if self.role == "student" else None
        head = self._descriptor_head(network)
        return Objective(self.run.config.targets, network, distiller, offsets, head).to(self.device)

    def _descriptor_head(self, network: EmbeddingNetwork) -> DescriptorHead | None:
        from ...segmentation import descriptor_channels  # not needed by the loader's workers

        descriptors = self.run.config.targets.descriptors_of(self.role)
        if descriptors is None:
            return None
        return DescriptorHead(network, descriptor_channels(self.run.config.volumes.images), descriptors.weight)

    def views(self, network: EmbeddingNetwork) -> tuple[View, View]:
        """The student and its trained teacher, which is moved to the training's device.

        Raises:
            UserError: the teacher's checkpoint cannot be used, or it takes other patches than the student.
        """
        assert self.teacher is not None and self.run.config.network_teacher is not None
        teacher, _ = load_network(self.teacher, self.run.config.network_teacher.network)
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
        if flow is not None and run.network_teacher is not None:
            flow_channels(flow, build_network(run.student.network), build_network(run.network_teacher.network))

    def require_module(self) -> None:
        """Refuse a module that is not there, or that does not fit the student, before anything is imported for it. It
        is not run: that takes the device of the training.

        Raises:
            UserError: see `script_file`, `require_offsets` and `require_patch`.
        """
        teacher = self.run.config.teacher
        if self.distillation is not None and isinstance(teacher, TorchscriptTeacherConfig):
            script_file(teacher)
            require_offsets(self.graph_offsets, teacher.offsets, "teacher.offsets")
            require_patch(teacher, Coordinate(self.section.training.patch_shape))

    def _affinity_distiller(self, network: EmbeddingNetwork, config: DistillationConfig) -> AffinityDistiller:
        """The terms of a teacher that gives affinities and no embeddings.

        Raises:
            UserError: it does not tell what the student is to be compared with.
        """
        run, teacher = self.run.config, self.run.config.teacher
        patch = Coordinate(self.section.training.patch_shape)
        part = embedded_part(network, patch, "student.training.patch_shape")
        given: ScriptedTeacher | StoredTeacher = StoredTeacher(part, self.graph_offsets)
        if isinstance(teacher, TorchscriptTeacherConfig):
            require_offsets(self.graph_offsets, teacher.offsets, "teacher.offsets")
            given = ScriptedTeacher(teacher, script_file(teacher), patch, self.device)
        in_plane = network.dimensions == 2 and not any(offset[0] for offset in self.graph_offsets)
        images = run.volumes.images or in_plane
        return AffinityDistiller(config, self.graph_offsets, part, given, seed=run.seed, images=images)

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
            before=run.targets.offsets.index(PREVIOUS_SECTION) if PREVIOUS_SECTION in run.targets.offsets else None,
            contact=contact_distances(config, run.targets),
            paraphrasers=paraphrasers,
            instances=instances,
            teacher_loss=None if config.teacher_learning_rate is None else LabelLoss(run.targets, views[1].network),
        )


def contact_distances(distillation: DistillationConfig, targets: TargetsConfig) -> tuple[int, int, int]:
    """Voxels along z, y, x that lie between voxels of touching instances, and 1."""
    if distillation.contact_distance is not None:
        return (distillation.contact_distance,) * 3
    across = 2 * targets.erosion + 1
    return (1 if targets.erosion_in_plane else across), across, across


def given_teacher(run: Run) -> dict[str, Any]:
    """What tells a teacher that is no network of ours from others, as JSON values by dotted paths. Where its files are
    gone, it is not told: a finished student needs them no more.
    """
    teacher = run.config.teacher
    if isinstance(teacher, TorchscriptTeacherConfig):
        told = teacher.model_dump(mode="json", exclude={"module"})
        file = Path(teacher.module).expanduser()
        return {"teacher": told, **({"teacher.module": file_digest(file)} if file.is_file() else {})}
    assert isinstance(teacher, AffinitiesTeacherConfig)
    volumes = run.config.volumes
    sources = sorted({region.source for region in (*volumes.train, *volumes.unlabelled)})
    told = {
        source: teacher.affinities[source].model_dump(mode="json", exclude={"paths", "allow_links"})
        for source in sources
    }
    try:
        arrays = {f"teacher.affinities.{source}.paths": identities(run, source) for source in sources}
    except UserError:  # the training itself says so, if it needs them
        arrays = {}
    return {"teacher.kind": teacher.kind, "teacher.affinities": told, **arrays}


def teacher_checkpoint(run: Run) -> Path | None:
    """The checkpoint that the config names, or the newest of the run's teacher, or None; None if it is no network.

    Raises:
        UserError: the named one does not exist.
    """
    if run.config.teacher is not None and run.config.network_teacher is None:
        return None
    named = None if run.config.network_teacher is None else run.config.network_teacher.checkpoint
    if named is None:
        return newest_checkpoint(run.network_directory("teacher"))
    path = Path(named).expanduser()
    for candidate in (path, run.directory / path):
        if candidate.is_file():
            return candidate
    raise UserError(f"there is no checkpoint {named}", "teacher.checkpoint")
