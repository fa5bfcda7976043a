"""Two networks that look at one patch: what each embeds of it, and where their layers lie."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from funlib.geometry import Coordinate

from ...config import DistillationConfig, Offset
from ...distillation import LayerFeatures
from ...errors import UserError
from ...networks import EmbeddingNetwork, Tap
from ...volumes import Box

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
        """A layer that `student.distillation.layers` names.

        Raises:
            UserError: the network has no such layer.
        """
        return find_tap(self.network, name, "student.distillation.layers")

    def placed(self, layers: Layers, labelled: Box) -> dict[str, LayerFeatures]:
        """Features with their place relative to the labelled voxels."""
        placed = {}
        for name, features in layers.items():
            tap = self.tap(name)
            missing = 3 - self.network.dimensions  # a network for images has whole sections
            begin = Coordinate((*labelled.begin[:missing], *tap.begin)) - labelled.begin
            placed[name] = LayerFeatures(features, (1,) * missing + tuple(tap.downsampling), begin)
        return placed


def find_tap(network: EmbeddingNetwork, name: str, where: str) -> Tap:
    """Find a tapped layer by name.

    Args:
        network: one that has it.
        name: of the layer.
        where: dotted config path that names it, for messages.

    Raises:
        UserError: the network has no such layer.
    """
    for tap in network.taps:
        if tap.name == name:
            return tap
    known = ", ".join(tap.name for tap in network.taps)
    raise UserError(f"the network {network.config.name} has no layer {name!r}; it has {known}", where)


def as_sections(features: torch.Tensor) -> torch.Tensor:
    """(b, c, z, y, x) as images (b * z, c, y, x): a graph of images has neither nodes nor edges across sections."""
    return features.transpose(1, 2).flatten(0, 1)


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
    if 0 in channels["embedding"]:  # nothing compares embeddings then
        del channels["embedding"]
    differing = {name: (pair[0], pair[1]) for name, pair in channels.items() if pair[0] != pair[1]}
    if "embedding" in differing and (config.inter_edge_weight or config.inter_affinity_weight):
        raise UserError(
            "student and teacher have different embedding_channels, which inter-image terms cannot compare; make them "
            "equal or set inter_edge_weight and inter_affinity_weight to 0",
            "student.distillation",
        )
    return differing


def in_sections(graph_offsets: tuple[Offset, ...], student: View, teacher: View) -> bool:
    """Whether two networks for images are compared section by section: no offset of the graph leaves its section."""
    for_images = student.network.dimensions == teacher.network.dimensions == 2
    return for_images and not any(offset[0] for offset in graph_offsets)
