"""Graph Flow distillation (IEEE TMI, doi 10.1109/tmi.2022.3224459): how a network's channels change between two layers.

The channels of a layer are the vertices of a graph, their likeness its edges. The student is to change vertices and
edges from its encoder to its decoder as the teacher does. Neither labels nor a common resolution are needed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .precision import SMALLEST_NORM, full_precision, no_autocast

LayerPair = tuple[torch.Tensor, torch.Tensor]
Variation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def difference(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """What the second layer has more than the first."""
    return second - first


def product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Where both layers agree, entry by entry; after the flow of solution procedure (Yim et al., CVPR 2017)."""
    return second * first


VARIATIONS: dict[str, Variation] = {"difference": difference, "product": product}
"""What may be made of vertices, or edges, of two layers."""


class GraphFlowLoss(nn.Module):
    """The student's channels are to change from layer 1 to layer 2 as the teacher's do.

    With V_c the vertex of channel c (see `channel_vertices`), E_cc' = cos(V_c, V_c'), and the variation between the
    layers Δ, by default layer 2 minus layer 1:

        vertex_weight · mean over (b, c) of ‖ΔV^T − ΔV^S‖² + edge_weight · mean over (b, c, c') of (ΔE^T − ΔE^S)²

    Args:
        patch: edge length, in features, of the cube around a channel's maximum; odd.
        vertex_weight, edge_weight: of the two terms; a term of weight 0 is not computed.
        variation: a name in `VARIATIONS`, or a function of the same quantity in layer 1 and in layer 2.

    Raises:
        ValueError: the patch is even, or the variation unknown.
    """

    def __init__(
        self,
        patch: int = 3,
        vertex_weight: float = 1.0,
        edge_weight: float = 1.0,
        variation: str | Variation = "difference",
    ) -> None:
        super().__init__()
        if patch < 1 or patch % 2 == 0:
            raise ValueError(f"a patch around a maximum has an odd extent, not {patch}")
        if isinstance(variation, str) and variation not in VARIATIONS:
            raise ValueError(f"unknown variation {variation!r}, expected one of {', '.join(VARIATIONS)}")
        self.patch = patch
        self.weights = {"flow_vertex": vertex_weight, "flow_edge": edge_weight}
        self.variation = VARIATIONS[variation] if isinstance(variation, str) else variation

    def forward(self, student: LayerPair, teacher: LayerPair) -> torch.Tensor:
        """The weighted sum of both terms.

        Args:
            student, teacher: layer 1 and layer 2 of each network, (B, C, *spatial), 2D or 3D, of equal B and C. Spatial
                extents may differ between networks and layers. The teacher gets no gradient.

        Raises:
            ValueError: B or C differ, or a layer has no features.
        """
        terms = self.terms(student, teacher)
        zero = student[0].flatten()[:0].sum()
        return sum((self.weights[name] * value for name, value in terms.items()), start=zero)

    def terms(self, student: LayerPair, teacher: LayerPair) -> dict[str, torch.Tensor]:
        """Each term by name, unweighted: `flow_vertex` and `flow_edge`; arguments as above."""
        _check_channels(student, teacher)
        learnt = [channel_vertices(layer, self.patch) for layer in student]
        taught = [channel_vertices(layer.detach(), self.patch) for layer in teacher]
        terms = {}
        if self.weights["flow_vertex"]:
            unlike = self.variation(*taught) - self.variation(*learnt)
            terms["flow_vertex"] = unlike.square().sum(2).mean()
        if self.weights["flow_edge"]:
            edges = [tuple(map(channel_edges, layers)) for layers in (taught, learnt)]
            terms["flow_edge"] = (self.variation(*edges[0]) - self.variation(*edges[1])).square().mean()
        return terms


def channel_vertices(features: torch.Tensor, patch: int) -> torch.Tensor:
    """The surroundings of each channel's maximum as a vector of length 1; zero where they are zero.

    Among equal maxima the first counts, the last axis running fastest. Beyond the ends the features are mirrored
    without repeating the last one.

    Args:
        features: (B, C, *spatial).
        patch: odd extent of the surroundings along every axis.

    Returns:
        (B, C, patch ** axes) in full precision. Gradients flow through the length; a zero vector has none.
    """
    voxels = features.flatten(2)
    around = _flat_index(voxels.argmax(2), features.shape[2:], patch)
    vertices = full_precision(voxels.gather(2, around))
    squares = vertices.square().sum(2, keepdim=True)
    scale = squares.clamp(min=SMALLEST_NORM**2).rsqrt()
    return vertices * torch.where(squares < SMALLEST_NORM**2, 0, scale)


def channel_edges(vertices: torch.Tensor) -> torch.Tensor:
    """Cosines between all vertices, (B, C, entries) of length 1 to (B, C, C)."""
    with no_autocast(vertices):
        return vertices @ vertices.transpose(1, 2)


def _flat_index(peak: torch.Tensor, spatial: torch.Size, patch: int) -> torch.Tensor:
    """Places (B, C) in a flattened map as the places of their surroundings, (B, C, patch ** axes)."""
    steps = torch.arange(patch, device=peak.device) - patch // 2
    index, stride = peak.new_zeros(*peak.shape, *(1 for _ in spatial)), 1
    for axis in reversed(range(len(spatial))):
        extent = spatial[axis]
        coordinates = _mirrored(peak.div(stride, rounding_mode="floor").remainder(extent)[..., None] + steps, extent)
        along_axis = [patch if other == axis else 1 for other in range(len(spatial))]
        index = index + stride * coordinates.view(*peak.shape, *along_axis)
        stride *= extent
    return index.flatten(2)


def _mirrored(coordinates: torch.Tensor, extent: int) -> torch.Tensor:
    """Coordinates beyond an axis as those of the features mirrored at its ends."""
    period = max(1, 2 * (extent - 1))
    inside = coordinates.remainder(period)
    return torch.minimum(inside, period - inside).clamp(max=extent - 1)


def _check_channels(student: LayerPair, teacher: LayerPair) -> None:
    shapes = [tuple(layer.shape) for layer in (*student, *teacher)]
    if len({shape[:2] for shape in shapes}) != 1:
        raise ValueError(
            f"layers of shapes {shapes[:2]} and {shapes[2:]}: all need the same batch and channels; "
            "a paraphraser brings the teacher's to the student's channels"
        )
    if any(extent == 0 for shape in shapes for extent in shape):
        raise ValueError(f"a layer without features has no maximum: {shapes}")
