"""What a student copies from its teacher, and on which volumes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Fraction, NonNegative, Offset, Positive, PositiveFloat, Section, Weight


class ParaphraserConfig(Section):
    """The autoencoders that say what the teacher's layers say in as many channels as the student has. They are trained
    once per teacher, before the student (`workflows/00b_train_paraphraser.py`).
    """

    iterations: Positive = 1000
    """Optimiser steps; batches are made as for the student."""
    learning_rate: PositiveFloat = 1e-3
    """Adam's step size; it falls like a cosine."""
    checkpoint: str | None = None
    """A trained paraphraser of the same teacher to use instead of training one."""


class GraphFlowConfig(Section):
    """Graph Flow (IEEE TMI, doi 10.1109/tmi.2022.3224459): how vertices (channels) and edges (their likeness) change
    between two layers. Needs no labels.
    """

    layers: tuple[str, str] = ("encoder_0", "decoder_0")
    """Two tapped layers of both networks, one of the encoder and one of the decoder. The student's two need equal
    channels; a network lists its layers."""
    patch: Positive = 3
    """Extent of the patch around a channel's maximum in features; an odd number."""
    vertex_weight: Weight = 0.1
    """Weight of the variation of vertices; on means of unit vectors, see docs/METHODS.md."""
    edge_weight: Weight = 0.1
    """Weight of the variation of edges."""
    variation: Literal["difference", "product"] = "difference"
    """What changes between the layers: the `difference` of layer 2 and layer 1, or their `product`, entry by entry."""
    paraphraser: ParaphraserConfig | None = ParaphraserConfig()
    """Brings the teacher's features to the student's channels. `null` compares the teacher's features as they are,
    which only networks of equal channels can."""

    @model_validator(mode="after")
    def _compares_two_layers(self) -> GraphFlowConfig:
        if self.patch % 2 == 0:
            raise ValueError("patch must be odd: as many features before the maximum as behind it")
        if self.layers[0] == self.layers[1]:
            raise ValueError(f"layers names {self.layers[0]!r} twice; nothing flows from a layer to itself")
        if not self.vertex_weight and not self.edge_weight:
            raise ValueError("vertex_weight and edge_weight are both 0; set graph_flow to null to leave it out")
        return self


class LogitsConfig(Section):
    """Logits distillation: divergence of the student's affinities from the teacher's, each a distribution over together
    and apart. Needs no labels.
    """

    weight: PositiveFloat = 0.1
    """Weight of the divergence, which is multiplied by the temperature squared."""
    temperature: PositiveFloat = 1.0
    """Softens both predictions; larger ones look less at what is certain."""


class AdversarialConfig(Section):
    """Adversarial distillation (WGAN-GP): a critic learns to tell the student's affinities from the teacher's, and the
    student to please it. Needs no labels.
    """

    weight: PositiveFloat = 0.02
    """Weight of the critic's opinion in the student's loss."""
    critic_learning_rate: PositiveFloat = 1e-4
    """Step size of the critic's own Adam."""
    critic_steps: Positive = 1
    """Steps of the critic for each of the student."""
    critic_widths: Annotated[tuple[Positive, ...], Field(min_length=1)] = (16, 32, 64)
    """Channels of the critic after each halving of the resolution."""
    penalty: Weight = 10.0
    """Weight of the gradient penalty."""


class UnlabelledConfig(Section):
    """What is learnt from `volumes.unlabelled`: the distillation terms, and never the supervised loss."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of every batch that is unlabelled, rounded to whole samples; `batch_size` counts both kinds."""
    instances: Literal["off", "watershed", "components"] = "off"
    """Where nodes and edges of unlabelled samples come from. `off`: they have none; `watershed`: fragments of the
    teacher's affinities as `fragments` makes them, agglomerated; `components`: connected parts of the teacher's
    affinities."""
    instance_threshold: Fraction = 0.5
    """Merge score, 1 minus affinity, up to which such parts are one instance."""


class DistillationConfig(Section):
    """What the student copies from the teacher: graph relation distillation (arXiv 2401.06370), and in sections of
    their own graph flow, logits and adversarial distillation, alone or together.

    All terms are means, so that the weights do not depend on patch, batch or memory size; see docs/METHODS.md. The
    defaults are the recipe that docs/BENCHMARKS.md found best: the affinity graph alone. The other terms are there to
    be weighed in; `configs/mala_ac4.json` has them all as published.
    """

    node_weight: Weight = 0.0
    """Weight of the instance nodes (intra-image instance graph); 0.1 as published."""
    edge_weight: Weight = 0.0
    """Weight of the instance edges (intra-image instance graph); 0.1 as published."""
    node_comparison: Literal["raw", "directions"] = "raw"
    """Of instance nodes. `raw`: the means of the embeddings, as published; `directions`: the same divided by their
    length, which is what affinities know of them."""
    edges: Literal["all", "touching"] = "all"
    """Between which instances there are edges within an image. `all`: each with each, as published; `touching`: those
    that touch, weighted by how much of them does, which is what a segmentation has to tell apart."""
    contact_distance: Positive | None = None
    """Two instances touch where voxels of theirs lie so many voxels apart along an axis. Default: twice
    `targets.erosion` and 1, which is across the cut that erosion makes; labels with membranes between the instances
    need more."""
    least_depth: NonNegative = 0
    """Instances that the border of a patch cuts, and that nowhere lie so many voxels inside it, are left out of nodes
    and edges: of a sliver, a mean says little. Along axes on which the patch has at most twice as many voxels, no
    border counts. 0 leaves none out, as published."""
    affinity_weight: Weight = 2.0
    """Weight of the affinity graph (intra-image); 10 as published, with `affinity_comparison: published`."""
    affinity_comparison: Literal["balanced", "published"] = "balanced"
    """`balanced`: affinities as a segmentation uses them, pairs across a boundary with as much weight as pairs within
    a neurite; `published`: plain mean over all pairs and cosines."""
    inter_edge_weight: Weight = 0.0
    """Weight of the inter-image instance edges; 1 as published."""
    inter_affinity_weight: Weight = 0.0
    """Weight of the inter-image affinities; 1 as published, on sums."""
    cross_section_weight: Weight = 0.0
    """Weight of affinities across networks: the student's embedding of a section against the teacher's of the sections
    before and behind it (after CAD, CVPR 2024), for anisotropic tissue. Where their widths differ, the student's pass a
    trained map that only the training has."""
    cross_section_target: Literal["labels", "teacher"] = "labels"
    """What these are to be: the affinities of the `labels`, or those that the `teacher` itself gives between the
    sections, which needs no labels."""
    memory_size: Positive = 32
    """Images in the memory bank."""
    memory_sample: Positive = 12
    """Memory images compared with each batch."""
    offsets: Annotated[tuple[Offset, ...], Field(min_length=1)] | None = None
    """Offsets of the affinity graph. Default: those that the labels teach the student, see `student.offsets`."""
    layers: tuple[str, ...] = ()
    """Tapped decoder layers that are distilled beside the embedding; a network lists its own. Default: the embedding
    only."""
    warm_up: NonNegative = 0
    """Iterations over which the distillation weights rise linearly to their values."""
    supervised_weight: Weight = 0.5
    """Weight of the supervised loss beside the distillation terms; 1 as published."""
    teacher_learning_rate: PositiveFloat | None = None
    """The teacher goes on learning from the labels beside the student, with steps of this size (after CAD, CVPR 2024);
    it follows the student's schedule, and what the student copies gives it no gradient. `null`: it stays as it is."""
    graph_flow: GraphFlowConfig | None = None
    """Graph Flow between two layers; `null` leaves it out, `{}` takes the defaults."""
    logits: LogitsConfig | None = None
    """Logits distillation; `null` leaves it out."""
    adversarial: AdversarialConfig | None = None
    """Adversarial distillation; `null` leaves it out."""
    unlabelled: UnlabelledConfig = UnlabelledConfig()
    """Distillation on `volumes.unlabelled`, if there are any."""

    @model_validator(mode="after")
    def _paraphraser_knows_its_teacher(self) -> DistillationConfig:
        if self.teacher_learning_rate is not None and self.graph_flow is not None and self.graph_flow.paraphraser:
            raise ValueError(
                "teacher_learning_rate changes the teacher that graph_flow.paraphraser has learnt; set one of them to"
                " null"
            )
        return self

    @property
    def has_instance_terms(self) -> bool:
        """Whether any term looks at instances."""
        return any((self.node_weight, self.edge_weight, self.inter_edge_weight))

    @property
    def needs_embeddings(self) -> tuple[str, str] | None:
        """The first setting that compares embeddings or inner layers, and what it is without; None if none does."""
        for name in (
            "node_weight",
            "edge_weight",
            "inter_edge_weight",
            "inter_affinity_weight",
            "cross_section_weight",
        ):
            if getattr(self, name):
                return name, "0"
        if self.layers:
            return "layers", "[]"
        return ("graph_flow", "null") if self.graph_flow is not None else None

    @property
    def compares_embeddings(self) -> bool:
        """Whether any term compares embeddings, and not affinities alone."""
        return self.has_instance_terms or bool(self.inter_affinity_weight or self.cross_section_weight)

    @property
    def compares_affinities(self) -> bool:
        """Whether any term compares affinities."""
        return bool(self.affinity_weight) or self.logits is not None or self.adversarial is not None
