"""Ready-made students, which come with the program: `predict.checkpoint` may be `pretrained:<name>`.

Each has a card beside its weights, which says what it was trained on and how it scored, and holds the sections of a
config that it wants; these hold wherever a config says nothing else.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import UserError
from .base import Fraction, NanometreShape, Section

PREFIX = "pretrained:"
WHERE = "predict.checkpoint"
FOLDER = Path(__file__).parents[1] / "pretrained"
"""A card (.json) and weights (.pt) of each student."""


class Card(Section):
    """What is to be known about a ready-made student."""

    nanometres: NanometreShape | None
    """Size of the voxels that it was trained on, order z, y, x; null if its images do not say theirs."""
    threshold: Fraction
    """Merge threshold that was best on its validation region."""
    data: str
    """What it was trained on, and by whom the data are."""
    licence: str
    """Licence of these data."""
    training: str
    """How it was trained."""
    scores: dict[str, float]
    """On the validation region, which it was not trained on."""
    not_tried: str
    """What nobody has tried it on."""
    config: dict[str, Any]
    """Sections of a config that hold where a config says nothing else."""


def pretrained_names() -> list[str]:
    """Names of all ready-made students."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def pretrained_name(checkpoint: str | None) -> str | None:
    """The name in a `predict.checkpoint`; None if it is a file, or nothing."""
    return checkpoint.removeprefix(PREFIX) if checkpoint is not None and checkpoint.startswith(PREFIX) else None


@cache
def read_card(name: str) -> Card:
    """The card of a student.

    Raises:
        UserError: there is no student of this name; says which there are.
    """
    _require(name)
    return Card.model_validate_json((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def pretrained_weights(name: str) -> Path:
    """The checkpoint of a student.

    Raises:
        UserError: there is no student of this name; says which there are.
    """
    _require(name)
    return FOLDER / f"{name}.pt"


def with_card(document: dict[str, Any]) -> dict[str, Any]:
    """A config that names a ready-made student, completed by what its card says; any other as it is.

    The card's threshold is taken where no labels are there to choose one by.

    Args:
        document: JSON values, as a user wrote them.

    Raises:
        UserError: there is no student of this name; says which there are.
    """
    predict = document.get("predict")
    named = predict.get("checkpoint") if isinstance(predict, dict) else None
    name = pretrained_name(named) if isinstance(named, str) else None
    if name is None:
        return document
    card = read_card(name)
    sections: dict[str, Any] = json.loads(json.dumps(card.config))
    volumes = document.get("volumes")
    if not (isinstance(volumes, dict) and volumes.get("validate")):
        sections["segment"] = {**sections.get("segment", {}), "thresholds": [card.threshold]}
    return {**document, **{key: _completed(document.get(key), section) for key, section in sections.items()}}


def _completed(given: Any, card: Any) -> Any:
    """A section with what the card says of keys that it does not have."""
    if given is None:
        return card
    return {**card, **given} if isinstance(given, dict) and isinstance(card, dict) else given


def _require(name: str) -> None:
    names = pretrained_names()
    if name not in names:
        raise UserError(f"there is no ready-made student {name!r}; there are {', '.join(names) or 'none'}", WHERE)
