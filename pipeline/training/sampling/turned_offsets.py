"""What augmentation makes of offsets: mirrored axes change their signs, exchanged axes their order.

The affinity of p and p + d is that of p + d and its partner at -d. So a channel of either serves for both.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ...config import AugmentConfig, Offset
from ...distillation import UNKNOWN, channel_of
from ...errors import UserError
from ...offsets import pair_slices


def turned(offset: Offset, mirror: Sequence[bool], transpose: Sequence[int]) -> Offset:
    """The offset of a pair of voxels after the array was mirrored and then transposed.

    Args:
        offset: before.
        mirror: which axes are mirrored.
        transpose: axis i of the result is axis transpose[i] of the mirrored array, as of `numpy.transpose`.
    """
    mirrored = [-step if flipped else step for step, flipped in zip(offset, mirror, strict=True)]
    z, y, x = (mirrored[axis] for axis in transpose)
    return z, y, x


def picked(affinities: np.ndarray, offsets: Sequence[Offset], wanted: Sequence[Offset]) -> np.ndarray:
    """The channels of some offsets.

    Where only the opposite offset has a channel, the affinity of p and p + offset is read at p + offset; beyond the
    array it is `UNKNOWN`.

    Args:
        affinities: (k, z, y, x).
        offsets: of its channels.
        wanted: those of the result.
    """
    result = np.full((len(wanted), *affinities.shape[1:]), UNKNOWN, affinities.dtype)
    for channel, offset in enumerate(wanted):
        source, is_opposite = channel_of(offset, offsets)
        if is_opposite:
            here, there = pair_slices(offset, affinities.shape[1:])
            result[channel][here] = affinities[source][there]
        else:
            result[channel] = affinities[source]
    return result


def require_turned_offsets(
    wanted: Sequence[Offset], given: Sequence[Offset], augment: AugmentConfig, where: str
) -> None:
    """Make sure that a channel tells of every offset that augmentation may turn into one of the student's.

    Raises:
        UserError: names the first that is missing, and the ways out.
    """
    for offset in wanted:
        for needed in sources_of(offset, augment):
            try:
                channel_of(needed, given)
            except ValueError:
                raise UserError(_what_is_missing(needed, offset, given, augment), where) from None


def needed_offsets(wanted: Sequence[Offset], augment: AugmentConfig) -> tuple[Offset, ...]:
    """Offsets of all channels that augmentation may need for some: of two opposite ones, the first that it meets."""
    found: list[Offset] = []
    for offset in wanted:
        for source in sources_of(offset, augment):
            if source not in found and opposite(source) not in found:
                found.append(source)
    return tuple(found)


def opposite(offset: Offset) -> Offset:
    """From the partner back."""
    z, y, x = offset
    return -z, -y, -x


def sources_of(offset: Offset, augment: AugmentConfig) -> list[Offset]:
    """All offsets that augmentation may turn into one, itself first."""
    axes = (0, 1, 2) if augment.transpose_all else (1, 2) if augment.transpose_yx else ()
    found = []
    for order in itertools.permutations(axes):
        transpose = [0, 1, 2]
        for axis, source in zip(axes, order, strict=True):
            transpose[axis] = source
        for mirror in itertools.product(*((False, True) if allowed else (False,) for allowed in augment.mirror)):
            found.append(turned(offset, mirror, transpose))
    return list(dict.fromkeys(found))


def _what_is_missing(needed: Offset, offset: Offset, given: Sequence[Offset], augment: AugmentConfig) -> str:
    there = ", ".join(str(list(one)) for one in given)
    if needed == offset:
        return (
            f"no channel tells of {list(offset)}, in which the student is compared; there are {there}: predict the"
            " teacher with it (predict.offsets), or compare others (student.distillation.offsets)"
        )
    key = "augment.transpose_all" if augment.transpose_all and needed[0] != offset[0] else "augment.transpose_yx"
    if [*map(abs, needed)] == [*map(abs, offset)]:
        key = "augment.mirror"
    return (
        f"no channel tells of {list(needed)}, which augmentation turns into {list(offset)}; there are {there}: predict"
        f" the teacher with it (predict.offsets), switch {key} off, or compare others (student.distillation.offsets)"
    )
