"""Pictures of sections: intensities as grey, affinities as colours, objects as coloured overlays."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import hsv_to_rgb

from ..hashing import GOLDEN, splitmix64

FILL = 0.42
"""Opacity of an object's colour over the raw section."""
OUTLINE = 0.95
"""Opacity of an object's colour along its outline."""

Colours = dict[int, np.ndarray]
"""RGB of object ids, (3,) float in [0, 1]."""


def grey(raw: np.ndarray, contrast: tuple[float, float] | None = None) -> np.ndarray:
    """Intensities as grey.

    Args:
        raw: (h, w), any real dtype.
        contrast: intensities that are black and white. Default: the 0.5 and 99.5 percentiles.

    Returns:
        (h, w, 3) float in [0, 1].
    """
    low, high = contrast or np.percentile(raw, (0.5, 99.5))
    scaled = np.clip((raw.astype(np.float32) - low) / max(float(high - low), 1e-6), 0, 1)
    return np.repeat(scaled[..., None], 3, axis=-1)


def affinity_colours(affinities: np.ndarray) -> np.ndarray:
    """The affinities to the nearest neighbours in z, y, x as red, green and blue.

    Args:
        affinities: (k, h, w) uint8; the first three count. Of an image two, y and x: there is no red then.

    Returns:
        (h, w, 3) float in [0, 1].
    """
    if len(affinities) == 2:
        affinities = np.concatenate([np.zeros_like(affinities[:1]), affinities])
    return np.moveaxis(affinities[:3], 0, -1).astype(np.float32) / 255


def object_colours(ids: np.ndarray) -> Colours:
    """A colour for every id but 0, always the same one, spread over hue and brightness."""
    present = np.unique(ids)
    present = present[present != 0].astype(np.uint64)
    mixed = splitmix64(present * GOLDEN)
    hue, saturation, value = ((mixed >> np.uint64(shift) & np.uint64(0xFFFF)) / 0xFFFF for shift in (0, 16, 32))
    colours = hsv_to_rgb(np.stack([hue, 0.6 + 0.35 * saturation, 0.8 + 0.2 * value], axis=-1))
    return dict(zip(present.tolist(), colours, strict=True))


def matching_colours(segments: np.ndarray, labels: np.ndarray) -> Colours:
    """Colours for segments: each label lends its own to the segment that covers most of it, larger overlaps first.

    A label that is split shows in a second colour, a segment that runs over two labels in the colour of one of them.

    Args:
        segments, labels: ids, of one shape.
    """
    colours = object_colours(segments)
    label_colours = object_colours(labels)
    common = (segments != 0) & (labels != 0)
    pairs, counts = np.unique(np.stack([segments[common], labels[common]]), axis=1, return_counts=True)
    given: set[int] = set()
    taken: set[int] = set()
    for index in np.argsort(-counts):
        segment, label = (int(value) for value in pairs[:, index])
        if segment not in taken and label not in given:
            colours[segment] = label_colours[label]
            taken.add(segment)
            given.add(label)
    return colours


def overlay(background: np.ndarray, ids: np.ndarray, colours: Colours) -> np.ndarray:
    """Objects in translucent colours with outlines over a grey section; id 0 stays uncovered.

    Args:
        background: (h, w, 3) float in [0, 1].
        ids: (h, w) unsigned integers.
        colours: colour of every id but 0.

    Returns:
        (h, w, 3) float in [0, 1].
    """
    present, index = np.unique(ids, return_inverse=True)
    table = np.array([colours.get(int(i), np.zeros(3)) for i in present])
    opacity = np.where(outlines(ids), OUTLINE, FILL) * (ids != 0)
    result: np.ndarray = background * (1 - opacity[..., None]) + table[index.reshape(ids.shape)] * opacity[..., None]
    return result


def outlines(ids: np.ndarray) -> np.ndarray:
    """(h, w) bool: pixels whose right or lower neighbour has another id."""
    edge = np.zeros(ids.shape, bool)
    edge[:-1] |= ids[:-1] != ids[1:]
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    return edge


def stretch(image: np.ndarray, factors: tuple[float, float]) -> np.ndarray:
    """Enlarge (h, w, ...) by factors of at least 1 per axis, nearest pixel, so that pixels become square."""
    for axis, factor in enumerate(factors):
        extent = round(image.shape[axis] * factor)
        source = np.minimum((np.arange(extent) / factor).astype(int), image.shape[axis] - 1)
        image = np.take(image, source, axis=axis)
    return image
