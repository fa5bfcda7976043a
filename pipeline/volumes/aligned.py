"""Labels and masks beside raw: where they lie on raw's voxels, and what they say there.

They may cover a part of raw, or more than raw, and may be coarser by whole factors (each of their voxels then stands
for several of raw's). What they do not cover is not annotated. Ids are compared before they are converted, so that no
negative or huge one becomes another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from funlib.geometry import Coordinate

from ..errors import UserError
from ..label_ids import has_id
from ..units import by
from .arrays import Box
from .placement import Placement, combined
from .stated_placement import statements
from .volume import Volume

Reader = Callable[[Volume, Box], np.ndarray]
"""Reads a box of a volume, in its own voxels: directly, or through a cache."""

Stated = tuple[float, float, float] | None
"""Nanometres, z, y, x; None if nothing says them."""

WHOLE = 1e-3
"""Part of a voxel by which positions and factors may be off, as decimal numbers are."""


def read_directly(volume: Volume, box: Box) -> np.ndarray:
    """Read a box through no cache."""
    return volume.read(box)


@dataclass(frozen=True)
class Aligned:
    """A volume on the voxels of another one, raw.

    Attributes:
        volume: labels or mask.
        raw: what it belongs to.
        begin: position of its first voxel in raw's voxels; may be negative.
        factor: raw's voxels per voxel, along z, y, x.
    """

    volume: Volume
    raw: Volume
    begin: Coordinate
    factor: Coordinate

    @property
    def covered(self) -> Box:
        """The voxels of raw that it says something about."""
        return Box(self.begin, self.begin + self.volume.shape * self.factor).intersect(self.raw.box)

    @property
    def covers_all(self) -> bool:
        """Whether it says something about every voxel of raw."""
        return self.covered == self.raw.box

    def known(self, box: Box) -> np.ndarray:
        """Where it says something, (z, y, x) bool, for a box of raw's voxels."""
        known = np.zeros(box.shape, dtype=bool)
        part = box.intersect(self.covered)
        if part.size:
            known[part.relative_to(box).slices] = True
        return known

    def read(self, box: Box, reader: Reader = read_directly) -> np.ndarray:
        """The values of a box of raw's voxels, (z, y, x); 0 where it says nothing."""
        part = box.intersect(self.covered)
        if not part.size:
            return np.zeros(box.shape, dtype=self.volume.dtype)
        begin = (part.begin - self.begin) // self.factor
        end = -((self.begin - part.end) // self.factor)
        values = reader(self.volume, Box(begin, end))
        for axis, factor in enumerate(self.factor):
            if factor > 1:
                values = values.repeat(factor, axis=axis)
        read = Box(self.begin + begin * self.factor, self.begin + end * self.factor)
        values = values[part.relative_to(read).slices]
        if part == box:
            return values
        around = np.zeros(box.shape, dtype=values.dtype)
        around[part.relative_to(box).slices] = values
        return around


@dataclass(frozen=True)
class _OnRaw:
    """What labels and masks share: they are read in raw's voxels."""

    aligned: Aligned

    @property
    def name(self) -> str:
        """Path or URL, for messages."""
        return self.aligned.volume.name

    @property
    def shape(self) -> Coordinate:
        """Extent of raw in voxels."""
        return self.aligned.raw.shape

    @property
    def box(self) -> Box:
        """All voxels of raw."""
        return self.aligned.raw.box

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Nanometres, order z, y, x."""
        return self.aligned.raw.voxel_size

    @property
    def offset(self) -> tuple[float, float, float]:
        """Position of raw's first voxel in nanometres, order z, y, x."""
        return self.aligned.raw.offset

    @property
    def chunks(self) -> Coordinate:
        """Raw's voxels whose values can only be decoded together, about."""
        return self.aligned.volume.chunks * self.aligned.factor

    @property
    def channels(self) -> None:
        """There is one value per voxel."""


@dataclass(frozen=True)
class Mask(_OnRaw):
    """Where a source is to be used."""

    dtype = np.dtype(np.uint8)

    def read(self, box: Box, reader: Reader = read_directly) -> np.ndarray:
        """1 where a box of raw's voxels is to be used, (z, y, x) uint8."""
        used: np.ndarray = self.aligned.read(box, reader) != 0
        return used.astype(np.uint8)


@dataclass(frozen=True)
class Labels(_OnRaw):
    """Ids of objects.

    Attributes:
        unlabelled_id: the value of voxels that are not annotated; may be negative.
    """

    unlabelled_id: int | None = None
    dtype = np.dtype(np.uint64)

    def read(self, box: Box, reader: Reader = read_directly) -> np.ndarray:
        """Ids of a box of raw's voxels, (z, y, x) uint64; 0 where it is background or not annotated.

        Raises:
            UserError: an id is negative and is not `unlabelled_id`.
        """
        return self.read_annotated(box, reader)[0]

    def annotated(self, box: Box, reader: Reader = read_directly) -> np.ndarray:
        """Where a box of raw's voxels is annotated, (z, y, x) bool; background is."""
        if self.unlabelled_id is None:
            return self.aligned.known(box)
        return self.read_annotated(box, reader)[1]

    def read_annotated(self, box: Box, reader: Reader = read_directly) -> tuple[np.ndarray, np.ndarray]:
        """Both of them; see `read` and `annotated`."""
        stored, known = self.aligned.read(box, reader), self.aligned.known(box)
        if self.unlabelled_id is not None:
            known &= ~has_id(stored, self.unlabelled_id)
        if not known.all():
            stored = np.where(known, stored, stored.dtype.type(0))
        require_ids(stored, self.name)
        return stored.astype(np.uint64), known


def require_ids(stored: np.ndarray, name: str, where: str = "targets.unlabelled_id") -> None:
    """Refuse negative ids.

    Raises:
        UserError: there is one.
    """
    if stored.dtype.kind == "i" and stored.size and stored.min() < 0:
        raise UserError(
            f"{name} has the negative label {stored.min()}; if it means that a voxel is not annotated, set"
            " targets.unlabelled_id to it, otherwise write 0 for background",
            where,
        )


def aligned(
    volume: Volume,
    raw: Volume,
    what: str,
    where: str,
    *,
    voxel_size: tuple[float, float, float] | None = None,
    offset: tuple[float, float, float] | None = None,
    alone: bool = False,
) -> Aligned:
    """Find out where labels or a mask lie on raw.

    Args:
        volume: labels or mask, opened without regard to its place.
        raw: what it belongs to, in its place.
        what: `labels` or `mask`.
        where: dotted path of the config section.
        voxel_size, offset: of the config, which count for raw and what belongs to it.
        alone: they count for the volume alone, whose place on raw they say.

    Raises:
        UserError: its place is not understood, is not that of whole voxels of raw, or lies beside it.
    """
    placed = combined(
        statements(volume.found, volume.choice),
        volume.name,
        voxel_size=voxel_size,
        offset=offset,
        where=where,
        required=False,
    )
    size = voxel_size if alone and voxel_size is not None else _stated_size(volume)
    factor = _factor(volume, raw, what, where, size, overridden=voxel_size is not None and not alone)
    begin = Coordinate(0, 0, 0)
    if placed.offset_from and (offset is None or alone):
        begin = _begin(volume, raw, placed, factor, where)
    elif any(abs(own * f - extent) >= f for own, f, extent in zip(volume.shape, factor, raw.shape, strict=True)):
        raise UserError(
            f"{volume.name} has {tuple(volume.shape)} voxels (z, y, x), but {raw.name} has {tuple(raw.shape)}, and"
            " nothing says which part of it they cover; they must agree, or an attribute offset (nanometres) say it",
            f"{where}.{what}",
        )
    found = Aligned(volume, raw, begin, factor)
    _require_common(found, where)
    return found


def _stated_size(volume: Volume) -> Stated:
    """The voxel size that the data themselves state, if it is understood."""
    try:
        return combined(statements(volume.found, volume.choice), volume.name, required=False).voxel_size
    except UserError:
        return None


def _factor(volume: Volume, raw: Volume, what: str, where: str, stated: Stated, overridden: bool) -> Coordinate:
    """Raw's voxels per voxel. A voxel size in the config counts for both, unless their own differ by whole factors."""
    if stated is None or (overridden and volume.shape == raw.shape):
        return Coordinate(1, 1, 1)
    size = (_stated_size(raw) if overridden else None) or raw.voxel_size
    factors = [own / of_raw for own, of_raw in zip(stated, size, strict=True)]
    if any(abs(factor - max(1, round(factor))) > WHOLE * factor for factor in factors):
        raise UserError(
            f"{volume.name} has voxels of {by(stated)} nm, but {raw.name} of {by(size)} nm; {what} may be coarser than"
            " raw by whole factors only: choose another level, or set voxel_size if the data are wrong",
            f"{where}.voxel_size",
        )
    return Coordinate(round(factor) for factor in factors)


def _begin(volume: Volume, raw: Volume, placed: Placement, factor: Coordinate, where: str) -> Coordinate:
    """Position of the first voxel in raw's voxels."""
    plain = [(own - of_raw) / size for own, of_raw, size in zip(placed.offset, raw.offset, raw.voxel_size, strict=True)]
    corner = list(plain)
    if placed.centred and raw.placement.centred:  # both name the middle of their first voxel
        corner = [position - (f - 1) / 2 for position, f in zip(plain, factor, strict=True)]
    for positions in (corner, plain):  # many writers mean the corner although their format says the middle
        if all(abs(position - round(position)) <= WHOLE for position in positions):
            return Coordinate(round(position) for position in positions)
    raise UserError(
        f"{volume.name} lies at {by(placed.offset)} nm, but {raw.name} at {by(raw.offset)} nm: that is {by(plain)} of"
        " raw's voxels, not whole ones; correct one of them, or set offset if both begin at the same place",
        f"{where}.offset",
    )


def _require_common(found: Aligned, where: str) -> None:
    """Along each axis, one of the two must lie within the other: all else is more likely a mistake than meant."""
    end = found.begin + found.volume.shape * found.factor
    along = list(zip(found.begin, end, found.raw.shape, strict=True))
    if all((b >= 0 and e <= extent) or (b <= 0 and e >= extent) for b, e, extent in along) and found.covered.size:
        return
    displaced = [b * size for b, size in zip(found.begin, found.raw.voxel_size, strict=True)]
    raise UserError(
        f"{found.volume.name} lies {by(displaced)} nm beside {found.raw.name} and reaches beyond it (voxels"
        f" {tuple(found.begin)} to {tuple(end)} of {tuple(found.raw.shape)}); crop them to one region, or set offset if"
        " both begin at the same place",
        f"{where}.offset",
    )
