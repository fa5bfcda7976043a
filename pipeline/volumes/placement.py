"""Where voxels lie: voxel size and offset in nanometres, fractions allowed, from what data state and the config says.

Formats state it in many ways (`dialects`); each is a `Statement`. What the config says wins. Of the rest, statements
about the array itself must agree; those about groups around it count where the array says nothing. What is stated and
not understood is an error. Nothing is rounded: sizes are fractions until the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ..errors import UserError
from ..units import by

Vector = tuple[Fraction, Fraction, Fraction]
"""Exact numbers, order z, y, x."""

Quantity = Literal["voxel_size", "offset"]

AGREEMENT = Fraction(1, 10**6)
"""Relative difference up to which two statements are one: binary fractions of one decimal number."""

FROM_CONFIG = "the config"

WHOLE = 1e-3
"""Part of a voxel by which an offset may miss a whole one, as decimal numbers do."""
_DECIMAL = 1e-6
"""Part of a voxel below half of one that counts as half."""


@dataclass(frozen=True)
class Statement:
    """What some metadata say about a voxel size or an offset.

    Attributes:
        quantity: what it is about.
        said_by: which metadata, for people.
        value: nanometres, order z, y, x; None if it is not understood.
        trouble: why it is not understood.
        distance: 0 for what is said about the array, more for groups around it.
        in_voxels: an offset in voxels.
        centred: offsets are those of the centre of the first voxel, not of its corner.
    """

    quantity: Quantity
    said_by: str
    value: Vector | None
    trouble: str = ""
    distance: int = 0
    in_voxels: bool = False
    centred: bool = False


@dataclass(frozen=True)
class Placement:
    """Where a volume lies, and who says so.

    Attributes:
        voxel_size: nanometres, order z, y, x; None if nothing says it.
        offset: of the first voxel in nanometres.
        voxel_size_from, offset_from: which metadata; empty if none.
        centred: the offset is that of the first voxel's centre, as OME-NGFF and N5's `transform` mean it (of OME-NGFF
            without a translation, too: 0 then); otherwise of its corner. It matters between arrays of different voxel
            sizes only.
    """

    voxel_size: tuple[float, float, float] | None
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    voxel_size_from: str = ""
    offset_from: str = ""
    centred: bool = False

    @property
    def text(self) -> str:
        """The voxel size for people: `40 x 8 x 8 nm`."""
        return "unknown voxel size" if self.voxel_size is None else f"{by(self.voxel_size)} nm"


def nearest_voxel(offset: Sequence[float], voxel_size: Sequence[float]) -> tuple[int, ...]:
    """The whole voxel, counted from the origin, that is nearest to an offset; both in nanometres, z, y, x. Half a voxel
    counts as a whole one, so that regions of one volume are all moved alike.
    """
    return tuple(math.floor(o / s + 0.5 + _DECIMAL) for o, s in zip(offset, voxel_size, strict=True))


def beside_whole_voxels(offset: Sequence[float], voxel_size: Sequence[float]) -> tuple[float, ...]:
    """How far the nearest whole voxel lies beside an offset, along z, y, x; all in nanometres. Exactly 0 where decimal
    numbers make all the difference.
    """
    found = nearest_voxel(offset, voxel_size)
    missed = (voxel * size - first for voxel, first, size in zip(found, offset, voxel_size, strict=True))
    return tuple(0.0 if abs(miss) <= WHOLE * size else miss for miss, size in zip(missed, voxel_size, strict=True))


def combined(
    statements: Iterable[Statement],
    name: str,
    *,
    voxel_size: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
    where: str = "",
    required: bool = True,
) -> Placement:
    """The placement that all statements and the config together give.

    Args:
        statements: of the metadata.
        name: of the array, for messages.
        voxel_size, offset: of the config, in nanometres, order z, y, x.
        where: dotted path of the config section, for messages.
        required: a voxel size must come out.

    Raises:
        UserError: statements contradict one another or are not understood, or nothing gives a voxel size; and the
            config does not say it.
    """
    told = list(statements)
    size_path, offset_path = (f"{where}.{key}" if where else "" for key in ("voxel_size", "offset"))
    size: Vector | None
    centred = False
    if voxel_size is not None:
        size, size_from = _exactly(voxel_size), FROM_CONFIG
    else:
        found = _agreed([s for s in told if s.quantity == "voxel_size"], None, name, size_path)
        size, size_from, centred = (found.value, found.said_by, found.centred) if found else (None, "", False)
        if size is not None and min(size) <= 0:
            raise UserError(
                f"{name}, {size_from} states {by(_floats(size))} nm, which is no voxel size; set voxel_size", size_path
            )
    if size is None and required:
        raise UserError(
            f"{name} does not say its voxel size; give it in nanometres, order z, y, x, for example [40, 4, 4]",
            size_path,
        )
    if offset is not None:
        return Placement(_floats(size), _floats(_exactly(offset)), size_from, FROM_CONFIG)
    place = _agreed([s for s in told if s.quantity == "offset"], size, name, offset_path)
    if place is None or place.value is None:
        return Placement(_floats(size), voxel_size_from=size_from, centred=centred)
    return Placement(_floats(size), _floats(place.value), size_from, place.said_by, place.centred)


def _agreed(statements: list[Statement], size: Vector | None, name: str, where: str) -> Statement | None:
    """The nearest statement, if all that are as near agree with it.

    Raises:
        UserError: they do not agree, or one is not understood.
    """
    if not statements:
        return None
    nearest = min(statement.distance for statement in statements)
    counting = [_in_nanometres(s, size) for s in statements if s.distance == nearest]
    for statement in counting:
        if statement.value is None:
            raise UserError(
                f"{name}: {statement.said_by} is not understood ({statement.trouble}); set {statement.quantity} in the"
                " config",
                where,
            )
    first = counting[0]
    for other in counting[1:]:
        if not _equal(first, other, size):
            raise UserError(
                f"{name} states two values: {_in_words(first)} and {_in_words(other)}; set {first.quantity} in the"
                " config to the right one",
                where,
            )
    return first


def _in_nanometres(statement: Statement, size: Vector | None) -> Statement:
    """A statement about voxels as one about nanometres."""
    if not statement.in_voxels or statement.value is None:
        return statement
    if size is None:
        return Statement("offset", statement.said_by, None, "it counts voxels of unknown size", statement.distance)
    z, y, x = (a * b for a, b in zip(statement.value, size, strict=True))
    return Statement("offset", statement.said_by, (z, y, x), "", statement.distance)


def _equal(first: Statement, other: Statement, size: Vector | None) -> bool:
    """Whether two statements say the same, up to how decimal numbers are stored."""
    if first.value is None or other.value is None:
        return False
    scale = size if first.quantity == "offset" and size is not None else (Fraction(0),) * 3
    return all(
        abs(a - b) <= AGREEMENT * max(abs(a), abs(b), s)
        for a, b, s in zip(first.value, other.value, scale, strict=True)
    )


def _in_words(statement: Statement) -> str:
    return f"{statement.said_by} {by(_floats(statement.value) or ())} nm"


def _exactly(values: Sequence[float]) -> Vector:
    z, y, x = (Fraction(repr(float(value))) for value in values)
    return z, y, x


def _floats(vector: Vector | None) -> tuple[float, float, float]:
    """The nearest binary numbers, which print as the decimal ones were written."""
    if vector is None:
        return None  # type: ignore[return-value]
    z, y, x = (float(value) for value in vector)
    return z, y, x
