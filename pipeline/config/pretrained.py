"""Ready-made students, which come with the program: `predict.checkpoint` may be `pretrained:<name>`.

Each has a card beside its weights, which says what it was trained on and how it scored, and holds the sections of a
config that it wants; these hold wherever a config says nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Collection
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
    name = named_student(document)
    if name is None:
        return document
    sections = _sections(name, document)
    return {**document, **{key: _completed(document.get(key), section) for key, section in sections.items()}}


def for_another_student(document: dict[str, Any], former: str, name: str, said: Collection[str]) -> dict[str, Any]:
    """The config that a run has stored, less what it says just as the card of its student does: so that another one's
    card may say it.

    Args:
        document: JSON values, complete with defaults.
        former: name of the student that the run was begun with.
        name: of the other one.
        said: dotted keys that are given a value anyway.

    Raises:
        UserError: there is no such student; or its card says what the former one's does not, and the stored value, a
            default perhaps, is another.
    """
    left, before = dict(document), _sections(former, document)
    for key, section in _sections(name, document).items():
        given, former_section = document.get(key), before.get(key, {})
        if not isinstance(given, dict):
            continue
        left[key] = {k: v for k, v in given.items() if k not in former_section or not _says(v, former_section[k])}
        for inner in section.keys() - former_section.keys():
            if f"{key}.{inner}" not in said and inner in given and not _says(given[inner], section[inner]):
                raise UserError(
                    f"this stored config says {json.dumps(given[inner])}, and the card of {PREFIX}{name}"
                    f" {json.dumps(section[inner])}; begin with the config that you wrote, or set it, too",
                    f"{key}.{inner}",
                )
    return left


def named_student(document: dict[str, Any]) -> str | None:
    """The name of the ready-made student that a config names as its checkpoint, if it names one."""
    predict = document.get("predict")
    named = predict.get("checkpoint") if isinstance(predict, dict) else None
    return pretrained_name(named) if isinstance(named, str) else None


def _sections(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """What the card of a student says about the sections of a config, its threshold included where no labels choose
    one.
    """
    card = read_card(name)
    sections: dict[str, Any] = json.loads(json.dumps(card.config))
    volumes = document.get("volumes")
    if not (isinstance(volumes, dict) and volumes.get("validate")):
        sections["segment"] = {**sections.get("segment", {}), "thresholds": [card.threshold]}
    return sections


def _says(stored: Any, card: Any) -> bool:
    """Whether a value that was stored with all defaults is that of a card, which leaves them out."""
    if isinstance(stored, dict) and isinstance(card, dict):
        return all(key in stored and _says(stored[key], value) for key, value in card.items())
    return bool(stored == card)


def _completed(given: Any, card: Any) -> Any:
    """A section with what the card says of keys that it does not have."""
    if given is None:
        return card
    return {**card, **given} if isinstance(given, dict) and isinstance(card, dict) else given


def _require(name: str) -> None:
    names = pretrained_names()
    if name not in names:
        raise UserError(f"there is no ready-made student {name!r}; there are {', '.join(names) or 'none'}", WHERE)
