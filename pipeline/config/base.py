"""What every config section shares: strictness and the types of the field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer


class Section(BaseModel):
    """A part of the config. Unknown keys are errors, values are never coerced, instances are immutable."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )


Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Probability = Fraction


@dataclass(frozen=True)
class TypeName:
    """The words for a type in docs/CONFIG.md and in error messages, where its structure alone does not give them."""

    text: str


LabelId = Annotated[int, Field(ge=-(2**63), le=2**64 - 1), TypeName("whole number")]
"""The id of a label: what 64 bits can hold, with or without a sign."""

VoxelVector = Annotated[tuple[int, int, int], TypeName("[z, y, x] in voxels (3 whole numbers)")]
"""A vector in voxels, order z, y, x."""

VoxelShape = Annotated[tuple[Positive, Positive, Positive], TypeName("[z, y, x] in voxels (3 whole numbers ≥ 1)")]
"""An extent in voxels, order z, y, x; each at least 1."""

VoxelContext = Annotated[
    tuple[NonNegative, NonNegative, NonNegative], TypeName("[z, y, x] in voxels (3 whole numbers ≥ 0)")
]
"""Voxels around a block, order z, y, x."""


def plain_number(value: float) -> float:
    """A number as JSON should have it: 8, not 8.0; fractions as they are."""
    return int(value) if float(value).is_integer() else float(value)


_AS_WRITTEN = (AfterValidator(plain_number), PlainSerializer(plain_number, return_type=int | float))

Nanometres = Annotated[float, Field(allow_inf_nan=False), *_AS_WRITTEN]
"""A length; fractions are allowed, and whole numbers stay whole ones in files and hashes."""

NanometreVector = Annotated[
    tuple[Nanometres, Nanometres, Nanometres], TypeName("[z, y, x] in nanometres (3 numbers, fractions allowed)")
]
"""A position in nanometres, order z, y, x."""

NanometreExtent = Annotated[float, Field(gt=0, allow_inf_nan=False), *_AS_WRITTEN]

NanometreShape = Annotated[
    tuple[NanometreExtent, NanometreExtent, NanometreExtent],
    TypeName("[z, y, x] in nanometres (3 numbers > 0, fractions allowed)"),
]
"""An extent in nanometres, order z, y, x; each above 0."""

Offset = VoxelVector
"""An affinity offset in voxels, order z, y, x."""

NEAREST_NEIGHBOURS: tuple[Offset, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""The three nearest-neighbour offsets, the convention of gunpowder and waterz."""

IN_PLANE_NEIGHBOURS: tuple[Offset, ...] = ((0, -1, 0), (0, 0, -1))
"""The nearest-neighbour offsets of an image in a stack."""
