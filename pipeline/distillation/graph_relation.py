"""Graph relation distillation (arXiv 2401.06370): all terms with their weights, their memory and their projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .affinities import AffinityGraphLoss
from .comparison import Comparison
from .contacts import contacts, without_slivers
from .instances import edge_term, node_term, nodes_of_images, touching_edge_term
from .inter_image import inter_affinity_term, inter_edge_term
from .layer_features import LayerFeatures, align, coarse_offsets
from .memory import MemoryBank, MemoryEntry, pooled_map
from .patch import EmbeddedPatch, Offsets
from .precision import no_autocast, unit_vectors

EMBEDDING = "embedding"
Terms = dict[str, torch.Tensor]


class GraphRelationDistillation(nn.Module):
    """The configured sum of all distillation terms.

    `node`, `edge` and `affinity` compare the embeddings, and any tapped layers given; each is the mean over the
    embedding and these layers. `inter_edge` and `inter_affinity` compare the embedding with remembered images. Terms
    of weight 0 are not computed. In training mode each batch is remembered after it was compared, so that an image
    never meets itself; in evaluation mode nothing changes.

    Args:
        offsets: of the affinity graph, in voxels, one number per spatial axis.
        node_weight, edge_weight: instance graph within the image.
        affinity_weight: affinity graph within the image.
        inter_edge_weight, inter_affinity_weight: relations to remembered images; need equal embedding channels.
        memory_size: images remembered.
        memory_sample: remembered images that each batch is compared with.
        pool: extent of the pooling windows of the inter-image affinity in voxels. Default: 7 x 7, or 3 x 7 x 7.
        projections: by layer (`embedding` is the last), the channels of student and teacher where they differ. The
            student's nodes pass a trained linear map for the node term; no other term needs one.
        balanced: how the affinity graph is compared, see `AffinityGraphLoss`.
        least_lengths: of the student's and the teacher's embeddings, see `embedding_affinities`; layers have none.
        unit_nodes: the node term compares directions of nodes.
        touching: the edge term compares instances that touch, weighted by their contact, see `contacts`; distances in
            voxels, one per spatial axis. Default: all instances with all.
        least_depth: instances that the border cuts to less than this are no instances, see `without_slivers`.
        seed: of the samples from the memory.
    """

    def __init__(
        self,
        offsets: Offsets,
        *,
        node_weight: float = 0.1,
        edge_weight: float = 0.1,
        affinity_weight: float = 10.0,
        inter_edge_weight: float = 0.0,
        inter_affinity_weight: float = 0.0,
        memory_size: int = 32,
        memory_sample: int = 12,
        pool: Sequence[int] | None = None,
        projections: Mapping[str, tuple[int, int]] | None = None,
        balanced: bool = False,
        least_lengths: tuple[float, float] = (0.0, 0.0),
        unit_nodes: bool = False,
        touching: Sequence[int] | None = None,
        least_depth: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.offsets = tuple(tuple(offset) for offset in offsets)
        self.weights = {
            "node": node_weight,
            "edge": edge_weight,
            "affinity": affinity_weight,
            "inter_edge": inter_edge_weight,
            "inter_affinity": inter_affinity_weight,
        }
        self.memory = MemoryBank(memory_size, pool, least_lengths[1])
        self.memory_sample = memory_sample
        self.projections = nn.ModuleDict(
            {layer: nn.Linear(student, teacher) for layer, (student, teacher) in (projections or {}).items()}
        )
        self.balanced = balanced
        self.least_lengths = least_lengths
        self.unit_nodes = unit_nodes
        self.touching = touching
        self.least_depth = least_depth
        self._seed = seed
        self._generator = torch.Generator().manual_seed(seed)

    def forward(
        self,
        student: torch.Tensor | EmbeddedPatch,
        teacher: torch.Tensor | EmbeddedPatch,
        labels: torch.Tensor,
        *,
        student_layers: Mapping[str, LayerFeatures] | None = None,
        teacher_layers: Mapping[str, LayerFeatures] | None = None,
        weight_scale: float = 1.0,
    ) -> tuple[torch.Tensor, Terms]:
        """The weighted sum times `weight_scale`, and each term by name: unweighted, without gradient.

        Args:
            student, teacher: (B, D, *spatial) embeddings of the same voxels, or patches that other losses look at, too.
                The teacher gets no gradient; a patch of the teacher's must not have any.
            labels: (B, *spatial) int64 of these voxels; values above 0 are instances.
            student_layers, teacher_layers: tapped layers by name, the same names in both.
            weight_scale: for example the share of a warm-up.

        Raises:
            ValueError: extents, names or channels do not fit together.
        """
        if self.least_depth:
            labels = without_slivers(labels, self.least_depth)
        both = Comparison(student, teacher, labels, self.least_lengths)
        per_layer = [self._terms_of_layer(EMBEDDING, both, self.offsets, self.touching)]
        per_layer += self._inner_layers(student_layers or {}, teacher_layers or {}, labels)
        terms = {name: torch.stack([layer[name] for layer in per_layer]).mean() for name in per_layer[0]}
        terms.update(self._between_images(both))
        weighted = [self.weights[name] * value for name, value in terms.items()]
        total = torch.stack(weighted).sum() if weighted else both.zero
        return total * weight_scale, {name: value.detach() for name, value in terms.items()}

    def _inner_layers(
        self,
        student_layers: Mapping[str, LayerFeatures],
        teacher_layers: Mapping[str, LayerFeatures],
        labels: torch.Tensor,
    ) -> list[Terms]:
        if set(student_layers) != set(teacher_layers):
            raise ValueError(f"layers {sorted(student_layers)} and {sorted(teacher_layers)} cannot be compared")
        terms = []
        for name, layer in student_layers.items():
            both = Comparison(*align(layer, teacher_layers[name], labels))
            touching = None if self.touching is None else coarse_offsets([self.touching], layer.downsampling)[0]
            terms.append(self._terms_of_layer(name, both, coarse_offsets(self.offsets, layer.downsampling), touching))
        return terms

    def _terms_of_layer(self, layer: str, both: Comparison, offsets: Offsets, touching: Sequence[int] | None) -> Terms:
        """The terms within an image: node, edge and affinity of one layer."""
        terms: Terms = {}
        if self.weights["node"]:
            student, teacher = both.nodes
            student = self._project(layer, student)
            if self.unit_nodes:
                student, teacher = unit_vectors(student, 2), unit_vectors(teacher, 2)
            terms["node"] = node_term(student, teacher, both.instances.present)
        if self.weights["edge"] and touching is None:
            terms["edge"] = edge_term(*both.nodes, both.instances.present)
        elif self.weights["edge"] and touching is not None:
            touched = contacts(both.instances, both.labels.shape[1:], touching)
            terms["edge"] = touching_edge_term(*both.nodes, touched)
        if self.weights["affinity"]:
            terms["affinity"] = AffinityGraphLoss(offsets, balanced=self.balanced).compare(both.student, both.teacher)
        return terms

    def _project(self, layer: str, nodes: torch.Tensor) -> torch.Tensor:
        if layer not in self.projections:
            return nodes
        with no_autocast(nodes):
            projected: torch.Tensor = self.projections[layer](nodes)
        return projected

    def _between_images(self, both: Comparison) -> Terms:
        if not self.weights["inter_edge"] and not self.weights["inter_affinity"]:
            return {}
        entries, taught, terms = self._sample(), pooled_map(both.teacher.unit, self.memory.pool), {}
        if self.weights["inter_edge"]:
            terms["inter_edge"] = inter_edge_term(*both.nodes, both.instances.counts, entries)
        if self.weights["inter_affinity"]:
            learnt = pooled_map(both.student.unit, self.memory.pool)
            terms["inter_affinity"] = inter_affinity_term(learnt, taught, entries)
        if self.training:
            self.memory.remember(nodes_of_images(both.nodes[1], both.instances), taught)
        return terms

    def _sample(self) -> list[MemoryEntry]:
        generator = self._generator if self.training else torch.Generator().manual_seed(self._seed)
        return self.memory.sample(self.memory_sample, generator)

    def get_extra_state(self) -> dict[str, Any]:
        """State of the generator that samples from the memory."""
        return {"generator": self._generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue sampling where another module stood."""
        self._generator.set_state(state["generator"].cpu())
