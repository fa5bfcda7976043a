"""Which stored axis is z, which y, which x; and which channel and time are meant.

Axes are named in C order, the last one varying fastest. N5 and precomputed list theirs the other way round; everything
here has them turned already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError

SPACE = "zyx"
_LETTERS: Mapping[str, str] = {
    "channel": "c",
    "channels": "c",
    "c^": "c",
    "time": "t",
    "t^": "t",
    "n": "z",
    "sections": "z",
}
"""Other names of axes."""


@dataclass(frozen=True)
class AxisChoice:
    """How a stored array is read as (z, y, x), or as (k, z, y, x) where channels are kept.

    Attributes:
        axes: one letter per stored axis.
        order: the stored axes of z, y and x.
        fixed: other stored axes, and the one index of each that is read.
        channels: the stored axis that becomes the first one; None if there is none.
    """

    axes: str
    order: tuple[int, int, int]
    fixed: Mapping[int, int]
    channels: int | None = None


def letters_of(names: Any) -> str | None:
    """Axes as metadata name them, one letter each; None if they name none, or others than z, y, x, c and t.

    Args:
        names: strings, or OME-NGFF's objects with `name` and `type`.
    """
    if isinstance(names, str):
        names = list(names)
    if not isinstance(names, Sequence):
        return None
    letters = [_letter(name) for name in names]
    return "".join(letters) if letters and all(letters) else None


def _letter(name: Any) -> str:
    if isinstance(name, Mapping):
        kind = name.get("type")
        name = kind if kind in ("channel", "time") else name.get("name")
    text = str(name).strip().lower()
    text = _LETTERS.get(text, text)
    return text if text in ("z", "y", "x", "c", "t") else ""


def choose_axes(
    shape: Sequence[int],
    stated: str | None,
    name: str,
    *,
    axes: str | None = None,
    channel: int | None = None,
    time: int | None = None,
    keep_channels: bool = False,
    where: str = "",
) -> AxisChoice:
    """How to read an array of a shape.

    Args:
        shape: stored, in C order.
        stated: axes as its metadata say; None if they do not.
        name: of the array, for messages.
        axes: of the config; wins.
        channel, time: of the config. Default: the only one there is.
        keep_channels: read all channels, as the first axis; four axes of which nothing is said are `czyx` then.
        where: dotted path of the config section, for messages.

    Raises:
        UserError: the axes are not known, or one of several channels or times is to be chosen.
    """
    paths = {key: f"{where}.{key}" if where else "" for key in ("axes", "channel", "time")}
    if stated is None and keep_channels and len(shape) == len(SPACE) + 1:
        stated = f"c{SPACE}"
    letters = _known(shape, stated, name, axes, paths["axes"])
    fixed, channels = {}, None
    for axis, letter in enumerate(letters):
        if letter in SPACE:
            continue
        key, wanted = ("channel", channel) if letter == "c" else ("time", time)
        if letter == "c" and keep_channels and wanted is None:
            channels = axis
        else:
            fixed[axis] = _chosen(wanted, shape[axis], key, name, paths[key])
    for letter, key, wanted in (("c", "channel", channel), ("t", "time", time)):
        if wanted not in (None, 0) and letter not in letters:
            raise UserError(f"{name} has no axis for {key}s (its axes are {letters}); leave this out", paths[key])
    z, y, x = (letters.index(letter) for letter in SPACE)
    return AxisChoice(letters, (z, y, x), fixed, channels)


def _known(shape: Sequence[int], stated: str | None, name: str, axes: str | None, where: str) -> str:
    letters = letters_of(axes) if axes is not None else stated
    if letters is None and axes is None and len(shape) == 3:
        letters = SPACE
    if letters is None:
        said = f"axes {axes!r} are not understood" if axes is not None else "which of them is which is not said"
        raise UserError(
            f"{name} has {len(shape)} axes {tuple(shape)}, and {said}; set axes to one letter of z, y, x, c (channel)"
            f" and t (time) for each, for example {'czyx' if len(shape) == 4 else 'zyx'}",
            where,
        )
    if len(letters) != len(shape):
        raise UserError(f"axes {letters} name {len(letters)} axes, but {name} has {len(shape)} {tuple(shape)}", where)
    if any(letters.count(letter) != 1 for letter in SPACE) or len(set(letters)) != len(letters):
        raise UserError(f"axes {letters} of {name} must have z, y and x once each, and c and t at most once", where)
    return letters


def _chosen(wanted: int | None, count: int, key: str, name: str, where: str) -> int:
    if wanted is None and count != 1:
        raise UserError(f"{name} has {count} {key}s; choose one by its number, 0 to {count - 1}", where)
    if wanted is not None and not 0 <= wanted < count:
        raise UserError(f"{name} has {count} {key}s, 0 to {count - 1}, not {wanted}", where)
    return wanted or 0
