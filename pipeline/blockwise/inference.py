"""From raw to affinities with a network: arrays in, arrays out. Only this needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from funlib.geometry import Coordinate

from ..distillation import cosine_to_affinity, embedding_affinities
from ..networks import EmbeddingNetwork, normalise_raw
from ..volumes import Box


def predict_affinities(
    network: EmbeddingNetwork,
    raw: np.ndarray,
    raw_box: Box,
    box: Box,
    offsets: Sequence[Sequence[int]],
    autocast: torch.dtype | None = None,
) -> np.ndarray:
    """Affinities of a box of voxels: the cosine between the embeddings at p and at p + offset, negative ones as 0.

    Args:
        network: in evaluation mode, on the device that computes.
        raw: (z, y, x) uint8 or uint16 intensities of `raw_box`.
        raw_box: what `read_box` gives for `box`.
        box: the voxels whose affinities are wanted, in the same frame as `raw_box`.
        offsets: affinity offsets in voxels.
        autocast: reduced precision for the network; cosines are float32 all the same.

    Returns:
        (k, z, y, x) float32 in [0, 1].
    """
    embedded = embedded_box(box, offsets)
    inner = embedded.relative_to(_on_volume(network, raw_box, network.output_box))
    wanted = box.relative_to(embedded)
    with torch.inference_mode():
        embedding = _crop(_embed(network, normalise_raw(raw), autocast), inner)
        cosines, _ = embedding_affinities(embedding, offsets, network.least_length)  # (1, k, z, y, x)
        affinities = cosine_to_affinity(_crop(cosines[0], wanted))
    return affinities.cpu().numpy()


def read_box(network: EmbeddingNetwork, box: Box, offsets: Sequence[Sequence[int]]) -> Box:
    """The raw voxels that exact affinities of a box need; they may reach beyond the volume, which is mirrored there."""
    return _on_volume(network, embedded_box(box, offsets), network.input_box)


def embedded_box(box: Box, offsets: Sequence[Sequence[int]]) -> Box:
    """The voxels whose embeddings the affinities of a box compare."""
    low = Coordinate(max(0, *(-offset[axis] for offset in offsets)) for axis in range(3))
    high = Coordinate(max(0, *(offset[axis] for offset in offsets)) for axis in range(3))
    return box.grow(low, high)


def _embed(network: EmbeddingNetwork, raw: np.ndarray, autocast: torch.dtype | None) -> torch.Tensor:
    """(z, y, x) to (1, d, z, y, x) float32; a network for images takes the sections one by one."""
    device = next(network.parameters()).device
    reduced = nullcontext() if autocast is None else torch.autocast(device.type, dtype=autocast)
    volume = torch.from_numpy(raw).to(device)
    with reduced:
        if network.dimensions == 2:
            return network(volume[:, None]).float().movedim(0, 1)[None]
        return network(volume[None, None]).float()


def _crop(values: torch.Tensor, box: Box) -> torch.Tensor:
    z, y, x = box.slices
    return values[..., z, y, x]


def _on_volume(network: EmbeddingNetwork, box: Box, transform: Callable[[Box], Box]) -> Box:
    """Apply what a network says about boxes of its own dimensions to a box of a volume."""
    if network.dimensions == 3:
        return transform(box)
    plane = transform(Box(Coordinate(box.begin[1:]), Coordinate(box.end[1:])))
    return Box(Coordinate(box.begin[0], *plane.begin), Coordinate(box.end[0], *plane.end))


def quantise(affinities: np.ndarray) -> np.ndarray:
    """Affinities in [0, 1] as uint8, 255 = certain."""
    return np.rint(affinities * 255).astype(np.uint8)
