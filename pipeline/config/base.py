"""What every config section shares: strictness and the types of the field."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of the config. Unknown keys are errors, values are never coerced, instances are immutable."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )


Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Probability = Fraction

VoxelVector = tuple[int, int, int]
"""A vector in voxels, order z, y, x."""

VoxelShape = tuple[Positive, Positive, Positive]
"""An extent in voxels, order z, y, x; each at least 1."""

Offset = VoxelVector
"""An affinity offset in voxels, order z, y, x."""

NEAREST_NEIGHBOURS: tuple[Offset, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""The three nearest-neighbour offsets, the convention of gunpowder and waterz."""
