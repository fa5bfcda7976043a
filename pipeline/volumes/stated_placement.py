"""What the metadata of an array that was found say about its axes and its place, whatever its format is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..errors import UserError
from .axes import SPACE, AxisChoice
from .containers import Found, multiscales_of
from .dialects import attributes, ngff, precomputed, tiff
from .dialects.units import plain
from .formats import Node
from .placement import Statement


def stored_shape(found: Found) -> tuple[int, ...]:
    """Extents of all axes, in C order, from the metadata alone.

    Raises:
        UserError: they do not say it.
    """
    node = found.array
    if node.format == "precomputed":
        scale = precomputed.scale_of(node.metadata, found.level or 0, node.name)[1]
        x, y, z = scale.get("size", (0, 0, 0))
        return (int(node.metadata.get("num_channels", 1)), z, y, x)
    shape = node.metadata.get("dimensions" if node.format == "n5" else "shape")
    if not isinstance(shape, list) or not all(isinstance(extent, int) for extent in shape):
        raise UserError("the metadata do not say the shape; correct them, or write the array again", node.name)
    return tuple(shape[::-1] if node.format == "n5" else shape)


def stated_axes(found: Found, shape: Sequence[int], where: str = "") -> str | None:
    """The axes that the metadata name, one letter each in C order; None if they name none.

    Raises:
        UserError: they are not understood, or different.
    """
    node = found.array
    if node.format == "precomputed":
        return precomputed.AXES
    reverse = node.format == "n5"
    told = list(attributes.stated_axes({**node.metadata, **plain(node.attributes)}, reverse))
    for group, path in found.groups:
        for multiscale in multiscales_of(group):
            if ngff.level_of(multiscale, path) is not None:
                value, letters = ngff.axes_of(multiscale, len(shape))
                told += [("OME-NGFF axes", value, letters)] if value is not None else []
        if path.count("/") == 0:  # a pyramid says it for its levels
            told += [t for t in attributes.stated_axes(plain(group.attributes), reverse) if _fits(t[2], shape)]
    for key, value, letters in told:
        if letters is None:
            example = "czyx" if len(shape) == 4 else "zyx"
            cure = f"set axes in the config, for example to {example}"
            raise UserError(f"{node.name}: {key} {value!r} is not understood; {cure}", where)
    different = list(dict.fromkeys(letters for _, _, letters in told if letters))
    if len(different) > 1:
        raise UserError(
            f"{node.name} states its axes as {' and as '.join(different)}; set axes in the config to the right ones"
            f"{' (zyx for volumes whose N5 dimensions are x, y, z)' if reverse else ''}",
            where,
        )
    if different and reverse and "".join(letter for letter in different[0] if letter in SPACE) != SPACE:
        raise UserError(
            f"{node.name} states axes, but N5 writers list them in different orders; set axes in the config (zyx for"
            " volumes whose N5 dimensions are x, y, z)",
            where,
        )
    return different[0] if different else None


def statements(found: Found, choice: AxisChoice) -> Iterator[Statement]:
    """Everything that the metadata of an array and of the groups around it say about voxel size and offset."""
    node = found.array
    if node.format == "precomputed":
        yield from precomputed.statements(precomputed.scale_of(node.metadata, found.level or 0, node.name)[1])
        return
    if node.format == "tiff":
        yield from tiff.statements(node.metadata)
        return
    reverse = node.format == "n5"
    own, name = plain(node.attributes), found.groups[0][1] if found.groups else ""
    factors = attributes.own_factors(own, choice.axes, reverse)
    # What an array says itself is its own, unless it says that the finest is meant: so COSEM's levels do it.
    yield from attributes.Said(own, choice.axes, reverse, factors=factors).statements()
    if factors is None:
        around = [plain(group.attributes) for group, _ in found.groups]
        factors = attributes.factors_of_groups(around, name, choice.axes, reverse)
    coarser = name if factors is None and attributes.is_coarser_level(name, reverse) else ""
    for distance, (group, inside) in enumerate(found.groups, start=1):
        near = 0 if factors is not None and distance == 1 else distance
        said = attributes.Said({}, choice.axes, reverse, group.name, near, factors, coarser)
        yield from _said_by_group(group, inside, said)


def _said_by_group(group: Node, inside: str, said: attributes.Said) -> Iterator[Statement]:
    """What a group says about an array inside: by naming it as a level of a pyramid, or of all that it holds."""
    for multiscale in multiscales_of(group):
        level = ngff.level_of(multiscale, inside)
        if level is not None:
            yield from ngff.statements(multiscale, level)
    told = plain(group.attributes)
    yield from replace(said, attributes=told if _are_of_arrays(told) else {}).statements()


def _are_of_arrays(told: object) -> bool:
    return isinstance(told, dict) and any(
        key in told for key in (*attributes.OF_THE_ARRAY, *attributes.OF_THE_FINEST, "offset", "transform")
    )


def _fits(letters: str | None, shape: Sequence[int]) -> bool:
    return letters is not None and len(letters) == len(shape)
