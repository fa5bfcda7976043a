"""What a student copies from its teacher: all terms of distillation, on the voxels that both embed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from ...config import DistillationConfig, Offset
from ...distillation import CrossSectionLoss, EmbeddedPatch, GraphRelationDistillation, LayerFeatures
from ...errors import UserError
from ...volumes import Box
from .embedding import embed_with_layers, patch_of, spatial
from .flow import FlowTerms
from .label_loss import LabelLoss
from .predictions import PredictionTerms
from .schedule import warm_up_share
from .step_clock import FLOW, PREDICTIONS, RELATIONS, TEACHER, Part, untimed
from .teacher_instances import TeacherInstances
from .views import Layers, View, as_sections, common_part, in_sections, projections

Terms = dict[str, torch.Tensor]
TEACHER_TERM = "teacher_supervised"
"""The loss of a teacher that goes on learning, among the terms."""


class Distiller(nn.Module):
    """A teacher and the losses that compare a student with it.

    A frozen teacher is no part of this module's parameters or state; one that goes on learning is, and what the student
    copies from it still gives it no gradient. Separate images, and two networks for images with a graph that has no
    offset along z, are compared section by section.

    Args:
        config: terms, weights, layers.
        offsets: of the affinity graph.
        student, teacher: the two networks and what each embeds of a patch.
        autocast: reduced precision for the teacher, or None.
        seed: of the samples from the memory.
        images: the sections are separate images.
        paraphrasers: trained ones of the layers of graph flow; None compares the teacher's features as they are.
        before: which affinity of a batch is the one to the section before, where labels say what sections share.
        contact: distances in voxels, along z, y, x, at which instances touch, where edges are those of touching ones.
        instances: gives the unlabelled samples of a batch instances; None leaves them without.
        teacher_loss: what labels ask of a teacher that goes on learning; None freezes it.

    Raises:
        UserError: the networks cannot be compared as configured.
    """

    def __init__(
        self,
        config: DistillationConfig,
        offsets: tuple[Offset, ...],
        student: View,
        teacher: View,
        autocast: torch.dtype | None,
        seed: int,
        images: bool = False,
        *,
        before: int | None = None,
        contact: Sequence[int] = (1, 1, 1),
        paraphrasers: nn.ModuleDict | None = None,
        instances: TeacherInstances | None = None,
        teacher_loss: LabelLoss | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.autocast = autocast
        self.common = common_part(student, teacher)
        self.instances = instances
        self._student = (student,)  # in tuples, so that torch does not take them for parts of this module
        self._teacher = (teacher,)
        self.teacher_loss = teacher_loss
        self.learning_teacher = None if teacher_loss is None else teacher.network
        teacher.network.eval().requires_grad_(teacher_loss is not None)
        graph_offsets = offsets if config.offsets is None else config.offsets
        self._before = before
        self.images = images or in_sections(graph_offsets, student, teacher)
        compared = tuple(offset[1:] for offset in graph_offsets) if self.images else graph_offsets
        self.losses = GraphRelationDistillation(
            compared,
            node_weight=config.node_weight,
            edge_weight=config.edge_weight,
            affinity_weight=config.affinity_weight,
            inter_edge_weight=config.inter_edge_weight,
            inter_affinity_weight=config.inter_affinity_weight,
            memory_size=config.memory_size,
            memory_sample=config.memory_sample,
            projections=projections(config, student, teacher),
            balanced=config.affinity_comparison == "balanced",
            least_lengths=(student.network.least_length, teacher.network.least_length),
            unit_nodes=config.node_comparison == "directions",
            touching=None if config.edges == "all" else contact[1:] if self.images else contact,
            least_depth=config.least_depth,
            seed=seed,
        )
        self.flow = None if config.graph_flow is None else FlowTerms(config.graph_flow, paraphrasers)
        self.predictions = PredictionTerms(config, compared, seed) if config.logits or config.adversarial else None
        self.cross_section: CrossSectionLoss | None = None
        if config.cross_section_weight:
            require_two_sections(self.common)
            widths = (view.network.config.embedding_channels for view in (student, teacher))
            self.cross_section = CrossSectionLoss((next(widths), next(widths)))

    @property
    def layers(self) -> tuple[str, ...]:
        """Tapped layers of both networks that the terms need, each once."""
        of_flow = () if self.config.graph_flow is None else self.config.graph_flow.layers
        return tuple(dict.fromkeys((*self.config.layers, *of_flow)))

    def weights(self, iteration: int) -> dict[str, float]:
        """The weight of each term that is computed in an iteration, warm-up included."""
        share = warm_up_share(iteration, self.config.warm_up)
        parts = [part.weights for part in (self.losses, self.flow, self.predictions) if part is not None]
        weights = {name: weight * share for part in parts for name, weight in part.items() if weight}
        crossed = {} if self.cross_section is None else {"cross_section": self.config.cross_section_weight * share}
        learning = {} if self.teacher_loss is None else {TEACHER_TERM: 1.0}
        return weights | crossed | learning

    def forward(
        self,
        embedded: EmbeddedPatch,
        layers: Layers,
        batch: dict[str, torch.Tensor],
        iteration: int,
        part: Part = untimed,
    ) -> tuple[torch.Tensor, Terms]:
        """The weighted sum of the terms, and each term.

        Args:
            embedded: (b, d, z, y, x) by the student.
            layers: its tapped features.
            batch: `raw` (b, 1, z, y, x) that it saw, and of the voxels that it embedded `labels` (b, z, y, x) int64,
                `affinities` as the labels have them and `mask` where these are known, each (b, k, z, y, x). Only a
                teacher that goes on learning and labels between sections need the last two.
            iteration: counted from 0.
            part: in whose contexts the parts of the step run.
        """
        student, teacher = self._student[0], self._teacher[0]
        with torch.set_grad_enabled(self.teacher_loss is not None), part(TEACHER):
            given, given_layers = embed_with_layers(teacher.network, batch["raw"], self.autocast, self.layers)
        taught, taught_layers = given.detach(), {name: layer.detach() for name, layer in given_layers.items()}
        in_student, in_teacher = (spatial(self.common.relative_to(view.part)) for view in (student, teacher))
        if self.common != student.part:
            embedded = embedded.changed(lambda voxels: voxels[in_student])
        of_teacher = patch_of(teacher.network, taught[in_teacher])
        known = {name: array[in_student] for name, array in batch.items() if name in ("labels", "affinities", "mask")}
        learnt = None if self.teacher_loss is None else self.teacher_loss(given[in_teacher], **known)
        labels = known["labels"]
        if self.instances is not None:
            labels = self.instances(of_teacher, labels)
        crossed = self._cross_sections(embedded, of_teacher, known)
        if self.images:
            embedded, of_teacher, labels = _sections(embedded), _sections(of_teacher), labels.flatten(0, 1)
        scale = warm_up_share(iteration, self.config.warm_up)
        with part(RELATIONS):
            total, terms = self._relations(embedded, of_teacher, labels, (layers, taught_layers), scale)
        if crossed is not None:
            total = total + scale * self.config.cross_section_weight * crossed
            terms["cross_section"] = crossed.detach()
        for losses, named in self._label_free(embedded, of_teacher, (layers, taught_layers), part):
            total = total + scale * sum(losses.weights[name] * value for name, value in named.items())
            terms |= {name: value.detach() for name, value in named.items()} | losses.reported
        if learnt is not None:
            total = total + learnt
            terms[TEACHER_TERM] = learnt.detach()
        return total, terms

    def _cross_sections(
        self, embedded: EmbeddedPatch, taught: EmbeddedPatch, known: dict[str, torch.Tensor]
    ) -> torch.Tensor | None:
        if self.cross_section is None:
            return None
        labels = None
        if self.config.cross_section_target == "labels":
            assert self._before is not None, "validated with the config"
            labels = known["affinities"][:, self._before], known["mask"][:, self._before]
        crossed: torch.Tensor = self.cross_section(embedded, taught, labels)
        return crossed

    def _relations(
        self,
        embedded: EmbeddedPatch,
        taught: EmbeddedPatch,
        labels: torch.Tensor,
        layers: tuple[Layers, Layers],
        scale: float,
    ) -> tuple[torch.Tensor, Terms]:
        """Graph relation distillation of the embeddings and of its own layers."""
        chosen = [{name: features[name] for name in self.config.layers} for features in layers]
        placed = [view.placed(c, self.common) for view, c in zip((*self._student, *self._teacher), chosen, strict=True)]
        if self.images:
            placed = [_layer_sections(features) for features in placed]
        result: tuple[torch.Tensor, dict[str, torch.Tensor]] = self.losses(
            embedded, taught, labels, student_layers=placed[0], teacher_layers=placed[1], weight_scale=scale
        )
        return result

    def _label_free(
        self, embedded: EmbeddedPatch, taught: EmbeddedPatch, layers: tuple[Layers, Layers], part: Part
    ) -> Iterator[tuple[FlowTerms | PredictionTerms, Terms]]:
        """The configured parts that look at no label, and the unweighted terms of each."""
        if self.flow is not None:
            learnt, shown = (
                {name: as_sections(f) if self.images else f for name, f in features.items()} for features in layers
            )
            with part(FLOW):
                flow = self.flow(learnt, shown)
            yield self.flow, flow
        if self.predictions is not None:
            with part(PREDICTIONS):
                predictions = self.predictions(embedded, taught)
            yield self.predictions, predictions


def require_two_sections(common: Box) -> None:
    """Refuse patches in which no section has another one beside it.

    Raises:
        UserError: there is one section that both networks embed.
    """
    if common.shape[0] < 2:
        raise UserError(
            "student and teacher embed one common section of a patch, so that cross_section_weight has none to compare "
            "it with; make it deeper",
            "student.training.patch_shape",
        )


def _sections(patch: EmbeddedPatch) -> EmbeddedPatch:
    """A patch whose sections are images of their own; no plain affinity of such networks leaves its section."""
    return patch.changed(as_sections, [offset[1:] for offset in patch.affinity_offsets])


def _layer_sections(layers: dict[str, LayerFeatures]) -> dict[str, LayerFeatures]:
    return {
        name: LayerFeatures(as_sections(layer.features), layer.downsampling[1:], layer.begin[1:])
        for name, layer in layers.items()
    }
