"""Turn pydantic's findings into the one line that a user needs: where, what is wrong, what would be right."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import UserError, hide_passwords
from .type_names import Place, key_of, place_at, sections_in, type_in_words, variant_name

LONGEST_QUOTE = 60
SECRET_SECTIONS = ("rag",)
"""Sections whose values may hold a password, and are not quoted."""

Details = Mapping[str, Any]
"""One finding of pydantic: `type`, `loc`, `msg`, `input`, `ctx`."""


def first_mistake(error: ValidationError, model: type[BaseModel]) -> UserError:
    """The first mistake of a failed validation as a `UserError`, with the number of further ones.

    A value that fits no member of a union makes pydantic report every member; they count as one mistake, told by the
    report that reaches deepest into the value.
    """
    groups: dict[str, list[Details]] = {}
    for details in error.errors():
        groups.setdefault(_union_path(details, model), []).append(details)
    reports = next(iter(groups.values()))
    deepest = max(reports, key=lambda details: len(place_at(model, details["loc"]).path.split(".")))
    mistake = _explain(deepest, model)
    if len(groups) > 1:
        mistake.what += f" (and {len(groups) - 1} more)"
    return UserError(mistake.what, mistake.where or "config")


def _union_path(details: Details, model: type[BaseModel]) -> str:
    """The path of the innermost key, list indices left out: reports on one value share it."""
    parts = place_at(model, details["loc"]).path.split(".")
    while len(parts) > 1 and parts[-1].isdecimal():
        parts.pop()
    return ".".join(parts)


def _explain(details: Details, model: type[BaseModel]) -> UserError:
    location, kind = details["loc"], details["type"]
    place = place_at(model, location)
    if kind == "value_error":
        return UserError(str(details["msg"]).removeprefix("Value error, "), place.path)
    if kind == "extra_forbidden":
        section = place_at(model, location[:-1]).annotation
        if location[0] in SECRET_SECTIONS and not str(location[-1]).isidentifier():
            known = ", ".join(key_of(*item) for kind in sections_in(section) for item in kind.model_fields.items())
            return UserError(f"an unknown key; this section knows {known}", str(location[0]))
        return UserError(f"unknown key{_suggestion(str(location[-1]), sections_in(section))}", place.path)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_variant(details, place)
    if kind == "missing" and not isinstance(location[-1], int):
        return UserError("this key is required", place.path)
    if kind == "missing":
        place = place_at(model, location[:-1])
    if location[-1:] == ("[key]",) and kind == "literal_error":
        names = re.findall(r"'([^']*)'", details["ctx"]["expected"])
        return UserError(f"unknown name{_nearest(str(location[-2]), names)}", place_at(model, location[:-1]).path)
    if location[-1:] == ("[key]",):
        return UserError("a name may have letters, digits, - and _ only", place.path)
    got = "" if place.path.split(".")[0] in SECRET_SECTIONS else f", got {_quote(details['input'])}"
    return UserError(f"expected {_expected(place)}{got}", place.path)


def _expected(place: Place) -> str:
    text = type_in_words(place.annotation)
    return text.replace("section", "an object {...}") if text.startswith("section") else text


def _wrong_variant(details: Details, place: Place) -> UserError:
    """No or an unknown value of the key that selects one of several sections."""
    discriminator = str(details["ctx"]["discriminator"]).strip("'")
    names = [variant_name(section, discriminator) for section in sections_in(place.annotation)]
    where = f"{place.path}.{discriminator}"
    if details["type"] == "union_tag_not_found":
        return UserError(f"this key is required: one of {', '.join(names)}", where)
    noun = place.path.rpartition(".")[2] if discriminator == "name" else discriminator
    return UserError(f"unknown {noun} {json.dumps(details['ctx']['tag'])}, expected one of {', '.join(names)}", where)


def _suggestion(key: str, sections: Sequence[type[BaseModel]]) -> str:
    """The nearest key of the section, or all of them."""
    return _nearest(key, [key_of(name, field) for section in sections for name, field in section.model_fields.items()])


def _nearest(key: str, known: Sequence[str]) -> str:
    """The nearest of the known keys, or all of them."""
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; this section knows {', '.join(known)}"


def _quote(value: Any) -> str:
    text = hide_passwords(json.dumps(value, default=str))
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"
