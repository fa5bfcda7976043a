"""From raw to affinities with a network: arrays in, arrays out. Only this needs torch.

A network that embeds section by section passes through a box a few sections at a time, whatever the box's depth; of the
embeddings, only as many sections are kept as offsets reach back. So memory follows the extent in the plane alone, and
no section is embedded twice.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from funlib.geometry import Coordinate

from ..distillation import SMALLEST_NORM, cosine_to_affinity
from ..networks import EmbeddingNetwork, Engine, TorchEngine, normalise_raw, peak_bytes, sections_at_once
from ..volumes import Box
from ..volumes.intensity import IntensityRange

Offsets = Sequence[Sequence[int]]
NORMALISED_AT_ONCE = 16
"""Sections, more or less: each is normalised once, but for those that two such portions share."""


class NoNumbersError(ValueError):
    """A network gives what is no number; as bytes, it would be zeros, which are affinities like any other."""


class Predictor:
    """Predicts the affinities of boxes: the plain ones that the network gives itself, from whichever voxel of a pair,
    and at other offsets the cosine between the embeddings at p and at p + offset, negative ones as 0.

    Args:
        network: in evaluation mode, on the device that computes.
        offsets: affinity offsets in voxels.
        engine: embeds for the network; default: torch in float32.
        intensity: what is black and white in raw; None for the full range of its type.
    """

    def __init__(
        self,
        network: EmbeddingNetwork,
        offsets: Offsets,
        engine: Engine | None = None,
        intensity: IntensityRange | None = None,
    ) -> None:
        self.network = network
        self._intensity = intensity
        self.offsets = [tuple(offset) for offset in offsets]
        self._engine = engine if engine is not None else TorchEngine(network, None)
        self._device = next(network.parameters()).device
        self._dimensions = network.embedding_channels
        self._plain = {offset: self._dimensions + k for k, offset in enumerate(network.affinity_offsets)}
        unknown = [offset for offset in self.offsets if not self._dimensions and not network.is_plain(offset)]
        if unknown:
            raise ValueError(f"the network has neither plain affinities at {list(unknown[0])} nor an embedding")

    def read_box(self, box: Box) -> Box:
        """The raw voxels that exact affinities of a box need, see `read_box`."""
        return read_box(self.network, box, self.offsets)

    @torch.inference_mode()
    def affinities(self, raw: np.ndarray, box: Box) -> np.ndarray:
        """Affinities of a box.

        Args:
            raw: (z, y, x) intensities of `read_box(box)`.
            box: the voxels whose affinities are wanted.

        Returns:
            (k, z, y, x) float32 in [0, 1].

        Raises:
            NoNumbersError: the network embeds a voxel as NaN or as infinite.
        """
        affinities = np.empty((len(self.offsets), *box.shape), np.float32)
        for section, part in enumerate(self._sections(raw, box)):
            affinities[:, section] = part.cpu().numpy()
        return affinities

    @torch.inference_mode()
    def quantised(self, raw: np.ndarray, box: Box) -> np.ndarray:
        """The same as (k, z, y, x) uint8, 255 = certain; raises the same."""
        affinities = np.empty((len(self.offsets), *box.shape), np.uint8)
        for section, part in enumerate(self._sections(raw, box)):
            affinities[:, section] = part.mul_(255).round_().to(torch.uint8).cpu().numpy()
        return affinities

    def _sections(self, raw: np.ndarray, box: Box) -> Iterator[torch.Tensor]:
        """The affinities (k, y, x) of one section of a box after another."""
        embedded = embedded_box(box, compared_offsets(self.network, self.offsets))
        wanted = box.relative_to(embedded)
        low, high = wanted.begin[0], embedded.shape[0] - wanted.end[0]
        around: deque[torch.Tensor] = deque(maxlen=low + 1 + high)
        for vectors in self._outputs(raw, embedded):
            around.append(vectors)
            if len(around) == around.maxlen:
                yield self._compare(around, low, wanted)

    def _outputs(self, raw: np.ndarray, embedded: Box) -> Iterator[torch.Tensor]:
        """What the network says of the sections of a box, (D + K, y, x): embeddings of length 1, or shorter where they
        are short, and behind them plain affinities.
        """
        read = _on_volume(self.network, embedded, self.network.input_box)
        inner = embedded.relative_to(_on_volume(self.network, read, self.network.output_box))
        _, y, x = inner.slices
        shortest = max(SMALLEST_NORM, self.network.least_length)
        for batch in self._embedded_sections(raw, inner):
            for embedding in batch[..., y, x]:
                told = torch.empty(embedding.shape, device=self._device).copy_(embedding)  # channel after channel
                vectors, logits = told[: self._dimensions], told[self._dimensions :]
                if len(vectors):
                    lengths = _inner_product(vectors, vectors).sqrt_()
                    _refuse_no_numbers(lengths)
                    # In place; the losses' own function also keeps what gradients need, which takes a fifth longer.
                    vectors.div_(lengths.clamp_(min=shortest))
                if len(logits):
                    _refuse_no_numbers(logits.sigmoid_())
                yield told

    def _embedded_sections(self, raw: np.ndarray, inner: Box) -> Iterator[torch.Tensor]:
        """The embeddings (n, D, y, x) of the sections of `inner`, a box of what the network gives for `raw`."""
        reach = self.network.section_reach
        if reach is None:
            z, _, _ = inner.slices
            yield self._engine(self.network.windows(self._normalised(raw)[None, None]))[0].movedim(0, 1)[z]
            return
        together = self.network.sections_together
        step = sections_at_once(raw.shape[1:], self._device, together)
        at_once = step * -(-NORMALISED_AT_ONCE // step)
        whole = _whole_windows(inner, together)
        for first in range(whole.start, whole.stop, at_once):
            sections = self._normalised(raw[first : min(first + at_once, whole.stop) + 2 * reach])
            for begin in range(0, len(sections) - 2 * reach, step):
                embedded = self._embedded_batch(sections[begin : begin + step + 2 * reach], at_once=step // together)
                wanted = slice(max(0, inner.begin[0] - first - begin), max(0, inner.end[0] - first - begin))
                yield embedded[wanted]

    def _embedded_batch(self, sections: torch.Tensor, at_once: int) -> torch.Tensor:
        """The embeddings (n, D, y, x) of some sections.

        For a single small input torch takes another convolution, which rounds differently, than for two or more. So
        that the depth of a tile changes no bit, the last section of a tile does not pass alone where others pass in
        company.

        Args:
            sections: (z, y, x) normalised intensities.
            at_once: windows that pass together where there are enough.
        """
        volume = sections[:, None] if self.network.dimensions == 2 else sections[None, None]
        windows = self.network.windows(volume)
        if len(windows) > 1 or at_once == 1:
            return self._engine(windows)
        return self._engine(windows.repeat_interleave(2, dim=0))[: self.network.sections_together]

    def _normalised(self, raw: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(normalise_raw(raw, self._intensity)).to(self._device)

    def _compare(self, around: Sequence[torch.Tensor], section: int, wanted: Box) -> torch.Tensor:
        """Affinities (k, y, x) of a section.

        Args:
            around: of the sections around it, (D + K, y, x) unit vectors and plain affinities.
            section: which of them it is.
            wanted: box of their plane, whatever its sections.
        """
        _, y, x = wanted.slices
        affinities = []
        for dz, dy, dx in self.offsets:
            there = (slice(y.start + dy, y.stop + dy), slice(x.start + dx, x.stop + dx))
            if (dz, dy, dx) in self._plain:
                affinities.append(around[section][self._plain[dz, dy, dx], y, x])
                continue
            if (-dz, -dy, -dx) in self._plain:  # the same pair, as the partner has it
                affinities.append(around[section + dz][self._plain[-dz, -dy, -dx], *there])
                continue
            here, partners = around[section][: self._dimensions], around[section + dz][: self._dimensions]
            affinities.append(cosine_to_affinity(_inner_product(here[:, y, x], partners[:, *there])))
        return torch.stack(affinities)


def _refuse_no_numbers(told: torch.Tensor) -> None:
    """Refuse lengths or affinities that are no numbers. None is negative, and none so large that finite ones would add
    up to infinity; to ask each of them takes a third of the time around a small network.
    """
    if not math.isfinite(float(told.sum())):
        raise NoNumbersError("embeddings or affinities are NaN or infinite, or too large for 32 bits")


def _whole_windows(inner: Box, together: int) -> range:
    """The sections of all windows that embed some section of a box."""
    return range(inner.begin[0] // together * together, -(-inner.end[0] // together) * together)


def _inner_product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Of vectors (D, y, x) at each place (y, x); channel by channel, without a temporary of the size of the vectors."""
    product = first[0] * second[0]
    for one, other in zip(first[1:], second[1:], strict=True):
        product.addcmul_(one, other)
    return product


def read_box(network: EmbeddingNetwork, box: Box, offsets: Offsets) -> Box:
    """The raw voxels that exact affinities of a box need; they may reach beyond the volume, which is mirrored there."""
    return _on_volume(network, embedded_box(box, compared_offsets(network, offsets)), network.input_box)


def compared_offsets(network: EmbeddingNetwork, offsets: Offsets) -> list[tuple[int, ...]]:
    """Those of some offsets whose affinities compare embeddings: all but the plain ones."""
    return [tuple(offset) for offset in offsets if tuple(offset) not in network.affinity_offsets]


def embedded_box(box: Box, offsets: Offsets) -> Box:
    """The voxels whose embeddings the affinities of a box compare."""
    low = Coordinate(max([0, *(-offset[axis] for offset in offsets)]) for axis in range(3))
    high = Coordinate(max([0, *(offset[axis] for offset in offsets)]) for axis in range(3))
    return box.grow(low, high)


def _on_volume(network: EmbeddingNetwork, box: Box, transform: Callable[[Box], Box]) -> Box:
    """Apply what a network says about boxes of its own dimensions to a box of a volume."""
    if network.dimensions == 3:
        return transform(box)
    plane = transform(Box(Coordinate(box.begin[1:]), Coordinate(box.end[1:])))
    return Box(Coordinate(box.begin[0], *plane.begin), Coordinate(box.end[0], *plane.end))


LIBRARY_FACTOR = 2
"""Convolutions copy what they take into layouts of their own: up to twice of what tensors hold was measured."""


def working_bytes(network: EmbeddingNetwork, read: Coordinate, box: Coordinate, offsets: Offsets, device: str) -> int:
    """About how much memory the affinities of a box need on the device, weights left out.

    Args:
        network: any.
        read: shape of what it reads, in voxels.
        box: shape of the box, in voxels.
        offsets: affinity offsets in voxels.
        device: `cpu` or `cuda`.
    """
    reach, plane = network.section_reach, read[1:]
    if reach is None:
        shape, sections = (1, 1, *read), read[0]
    else:
        together = network.sections_together
        windows = min(sections_at_once(plane, torch.device(device), together), box[0] + together - 1) // together
        sections, shape = windows * together, (windows, 2 * reach + together, *plane)
    compared = embedded_box(Box.of_shape(box), compared_offsets(network, offsets))
    kept = box[1] * box[2] * (sections + compared.shape[0] - box[0])
    vectors = 2 * 4 * network.head_channels * kept
    affinities = 2 * 4 * len(offsets) * box[1] * box[2] * sections
    return int(LIBRARY_FACTOR * peak_bytes(network, shape) + vectors + affinities)
