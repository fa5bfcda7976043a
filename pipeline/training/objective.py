"""What a network is trained for: supervision by labels, and for a student what it copies from its teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from funlib.geometry import Coordinate
from torch import nn

from ..config import DistillationConfig, Offset, TargetsConfig
from ..distillation import EmbeddedPatch, GraphRelationDistillation, LayerFeatures, SupervisedAffinityLoss
from ..errors import UserError
from ..networks import EmbeddingNetwork, Tap
from ..volumes import Box
from .embedding import embed_with_layers, spatial
from .schedule import warm_up_share

Terms = dict[str, torch.Tensor]
Layers = dict[str, torch.Tensor]


@dataclass(frozen=True)
class View:
    """A network and what it embeds of a patch.

    Attributes:
        network: for images or volumes.
        part: the voxels that it embeds, counted from the patch's first voxel.
    """

    network: EmbeddingNetwork
    part: Box

    def tap(self, name: str) -> Tap:
        """A tapped layer.

        Raises:
            UserError: the network has no such layer.
        """
        for tap in self.network.taps:
            if tap.name == name:
                return tap
        known = ", ".join(tap.name for tap in self.network.taps)
        raise UserError(
            f"the network {self.network.config.name} has no layer {name!r}; it has {known}",
            "student.distillation.layers",
        )

    def placed(self, layers: Layers, labelled: Box) -> dict[str, LayerFeatures]:
        """Features with their place relative to the labelled voxels."""
        placed = {}
        for name, features in layers.items():
            tap = self.tap(name)
            missing = 3 - self.network.dimensions  # a network for images has whole sections
            begin = Coordinate((*labelled.begin[:missing], *tap.begin)) - labelled.begin
            placed[name] = LayerFeatures(features, (1,) * missing + tuple(tap.downsampling), begin)
        return placed


class Distiller(nn.Module):
    """A frozen teacher and the losses that compare a student with it.

    The teacher is no part of this module's parameters or state. Separate images, and two networks for images with a
    graph that has no offset along z, are compared section by section.

    Args:
        config: terms, weights, layers.
        offsets: of the affinity graph.
        student, teacher: the two networks and what each embeds of a patch.
        autocast: reduced precision for the teacher, or None.
        seed: of the samples from the memory.
        images: the sections are separate images.

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
    ) -> None:
        super().__init__()
        self.config = config
        self.autocast = autocast
        self.common = common_part(student, teacher)
        self._student = (student,)  # in tuples, so that torch does not take them for parts of this module
        self._teacher = (teacher,)
        teacher.network.eval().requires_grad_(False)
        graph_offsets = offsets if config.offsets is None else config.offsets
        in_plane = student.network.dimensions == teacher.network.dimensions == 2 and not any(
            offset[0] for offset in graph_offsets
        )
        self.images = images or in_plane
        self.losses = GraphRelationDistillation(
            tuple(offset[1:] for offset in graph_offsets) if self.images else graph_offsets,
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
            seed=seed,
        )

    def weights(self, iteration: int) -> dict[str, float]:
        """The weight of each term that is computed in an iteration, warm-up included."""
        share = warm_up_share(iteration, self.config.warm_up)
        return {name: weight * share for name, weight in self.losses.weights.items() if weight}

    def forward(
        self, embedded: EmbeddedPatch, layers: Layers, raw: torch.Tensor, labels: torch.Tensor, iteration: int
    ) -> tuple[torch.Tensor, Terms]:
        """The weighted sum of the terms, and each term.

        Args:
            embedded: (b, d, z, y, x) by the student.
            layers: its tapped features.
            raw: (b, 1, z, y, x) that it saw.
            labels: (b, z, y, x) int64 of the voxels that it embedded.
            iteration: counted from 0.
        """
        student, teacher = self._student[0], self._teacher[0]
        with torch.no_grad():
            taught, taught_layers = embed_with_layers(teacher.network, raw, self.autocast, self.config.layers)
        in_student, in_teacher = (spatial(self.common.relative_to(view.part)) for view in (student, teacher))
        if self.common != student.part:
            embedded = EmbeddedPatch(embedded.embedding[in_student], embedded.least_length)
        taught, labels = taught[in_teacher], labels[in_student]
        placed = student.placed(layers, self.common), teacher.placed(taught_layers, self.common)
        if self.images:
            embedded, taught = EmbeddedPatch(_sections(embedded.embedding), embedded.least_length), _sections(taught)
            placed = _layer_sections(placed[0]), _layer_sections(placed[1])
            labels = labels.flatten(0, 1)
        return self.losses(
            embedded,
            taught,
            labels,
            student_layers=placed[0],
            teacher_layers=placed[1],
            weight_scale=warm_up_share(iteration, self.config.warm_up),
        )


def _sections(features: torch.Tensor) -> torch.Tensor:
    """(b, c, z, y, x) as images (b * z, c, y, x): a graph of images has neither nodes nor edges across sections."""
    return features.transpose(1, 2).flatten(0, 1)


def _layer_sections(layers: dict[str, LayerFeatures]) -> dict[str, LayerFeatures]:
    return {
        name: LayerFeatures(_sections(layer.features), layer.downsampling[1:], layer.begin[1:])
        for name, layer in layers.items()
    }


def common_part(student: View, teacher: View) -> Box:
    """The voxels of a patch that both networks embed.

    Raises:
        UserError: there is none.
    """
    common = student.part.intersect(teacher.part)
    if common.size == 0:
        raise UserError(
            "teacher and student embed no common voxel of a patch; make it larger", "student.training.patch_shape"
        )
    return common


def projections(config: DistillationConfig, student: View, teacher: View) -> dict[str, tuple[int, int]]:
    """Channels of student and teacher where they differ: by layer, and `embedding`.

    Raises:
        UserError: a layer is unknown or lies differently in the two networks, or a term needs equal channels.
    """
    channels = {"embedding": tuple(view.network.config.embedding_channels for view in (student, teacher))}
    for name in config.layers:
        taps = student.tap(name), teacher.tap(name)
        same_grid = taps[0].downsampling == taps[1].downsampling
        if not same_grid or any(
            (a - b) % step for a, b, step in zip(taps[0].begin, taps[1].begin, taps[0].downsampling, strict=True)
        ):
            raise UserError(
                f"layer {name!r} lies on other voxels in the student than in the teacher; distil another layer",
                "student.distillation.layers",
            )
        channels[name] = (taps[0].channels, taps[1].channels)
    differing = {name: (pair[0], pair[1]) for name, pair in channels.items() if pair[0] != pair[1]}
    if "embedding" in differing and (config.inter_edge_weight or config.inter_affinity_weight):
        raise UserError(
            "student and teacher have different embedding_channels, which inter-image terms cannot compare; make them "
            "equal or set inter_edge_weight and inter_affinity_weight to 0",
            "student.distillation",
        )
    return differing


class Objective(nn.Module):
    """The loss of a training step.

    Args:
        targets: offsets of the affinities in a batch, and the weight of the background.
        least_length: of the network's embeddings.
        distiller: for a student that learns from a teacher.
        offsets: those of the targets' offsets that are supervised. Default: all.
    """

    def __init__(
        self,
        targets: TargetsConfig,
        least_length: float,
        distiller: Distiller | None = None,
        offsets: tuple[Offset, ...] | None = None,
    ) -> None:
        super().__init__()
        supervised = targets.offsets if offsets is None else offsets
        self.channels = [targets.offsets.index(offset) for offset in supervised]
        self.supervised = SupervisedAffinityLoss(supervised, targets.background_weight, least_length)
        self.distiller = distiller

    @property
    def layers(self) -> tuple[str, ...]:
        """Tapped layers of the trained network that the loss needs."""
        return () if self.distiller is None else self.distiller.config.layers

    def weights(self, iteration: int) -> dict[str, float]:
        """The weight of each term in an iteration."""
        if self.distiller is None:
            return {"supervised": 1.0}
        return {"supervised": self.distiller.config.supervised_weight, **self.distiller.weights(iteration)}

    def forward(
        self, embedding: torch.Tensor, layers: Layers, batch: dict[str, torch.Tensor], iteration: int
    ) -> tuple[torch.Tensor, Terms]:
        """The loss and its named, unweighted terms.

        Args:
            embedding: (b, d, z, y, x) float32.
            layers: tapped features.
            batch: `raw` (b, 1, z, y, x), `labels` (b, z, y, x), `affinities` and `mask` (b, k, z, y, x).
            iteration: counted from 0.
        """
        targets, known = batch["affinities"][:, self.channels], batch["mask"][:, self.channels]
        embedded = EmbeddedPatch(embedding, self.supervised.least_length)
        total = self.supervised(embedded, targets, known, batch["labels"])
        terms = {"supervised": total.detach()}
        if self.distiller is not None:
            distilled, named = self.distiller(embedded, layers, batch["raw"], batch["labels"], iteration)
            terms.update(named)
            total = self.distiller.config.supervised_weight * total + distilled
        return total, terms
