"""Networks on volumes: two-dimensional ones see each section by itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from funlib.geometry import Coordinate

from ...distillation import EmbeddedPatch
from ...errors import UserError
from ...networks import EmbeddingNetwork
from ...volumes import Box


def embed(network: EmbeddingNetwork, raw: torch.Tensor, autocast: torch.dtype | None) -> torch.Tensor:
    """Embed every voxel that the network can embed of a patch.

    Args:
        network: for images or volumes.
        raw: (b, 1, z, y, x) float32 in [-1, 1].
        autocast: reduced precision inside the network, or None.

    Returns:
        (b, d, *output) float32.
    """
    with precision(raw.device, autocast):
        embedding = network(_as_images(network, raw)).float()
    return _as_volumes(network, embedding, raw)


def embed_with_layers(
    network: EmbeddingNetwork, raw: torch.Tensor, autocast: torch.dtype | None, layers: Sequence[str]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """`embed`, and the features (b, c, *size) of some tapped layers."""
    if not layers:
        return embed(network, raw, autocast), {}
    with precision(raw.device, autocast):
        embedding, features = network.forward_with_taps(_as_images(network, raw))
    chosen = {name: _as_volumes(network, features[name].float(), raw) for name in layers}
    return _as_volumes(network, embedding.float(), raw), chosen


def patch_of(network: EmbeddingNetwork, output: torch.Tensor) -> EmbeddedPatch:
    """What a network gives for patches, (b, d, *spatial), as the losses see it."""
    return EmbeddedPatch(output, network.least_length, network.affinity_offsets)


def _as_images(network: EmbeddingNetwork, raw: torch.Tensor) -> torch.Tensor:
    """What the network sees of a batch of volumes: for one of images, each section by itself."""
    return raw if network.dimensions == 3 else raw.transpose(1, 2).flatten(0, 1)


def _as_volumes(network: EmbeddingNetwork, features: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
    """Put the sections of a batch of volumes together again, (b, c, z, y, x)."""
    return features if network.dimensions == 3 else features.unflatten(0, (raw.shape[0], -1)).transpose(1, 2)


def precision(device: torch.device, autocast: torch.dtype | None) -> AbstractContextManager[object]:
    """A context in which networks compute in reduced precision, if there is one."""
    return nullcontext() if autocast is None else torch.autocast(device.type, dtype=autocast)


def embedded_part(network: EmbeddingNetwork, patch: Coordinate, where: str) -> Box:
    """The part of a patch that the network embeds, counted from the patch's first voxel.

    Args:
        network: for images or volumes.
        patch: (z, y, x) voxels.
        where: dotted config path, for messages.

    Raises:
        UserError: the network takes no such patch; says which it takes.
    """
    axes = network.dimensions
    try:
        network.output_shape(patch[-axes:])
    except UserError as error:
        raise UserError(error.what, where) from None
    return _whole_sections(network.output_box(Box.of_shape(patch[-axes:])), 0, patch[0])


def needed_input(network: EmbeddingNetwork, output: Box) -> tuple[Box, Box]:
    """The input that embeds a box of voxels exactly, and the box that the network then embeds; all (z, y, x)."""
    if network.dimensions == 3:
        raw = network.input_box(output)
        return raw, network.output_box(raw)
    raw = network.input_box(Box(Coordinate(output.begin[1:]), Coordinate(output.end[1:])))
    begin, end = output.begin[0], output.end[0]
    return _whole_sections(raw, begin, end), _whole_sections(network.output_box(raw), begin, end)


def _whole_sections(box: Box, begin: int, end: int) -> Box:
    """A box of a plane or volume as one of a volume; in a plane, sections begin to end - 1 are meant."""
    if len(box.begin) == 3:
        return box
    return Box(Coordinate(begin, *box.begin), Coordinate(end, *box.end))


def spatial(box: Box) -> tuple[Any, ...]:
    """A box as an index into the last axes of an array or tensor."""
    return (..., *box.slices)
