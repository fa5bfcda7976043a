"""Say in words what a config value may be, and find the type that stands at a place in the config."""

from __future__ import annotations

import json
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .base import TypeName

BASIC = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class Place:
    """A place in the config.

    Attributes:
        path: dotted path as the user writes it, without the names of union members that pydantic puts in between.
        annotation: the type expected there, None if the place is unknown.
    """

    path: str
    annotation: Any


def type_in_words(annotation: Any) -> str:
    """What a value of this type looks like in JSON, in words, for example `whole number ≥ 1`."""
    if get_origin(annotation) is Annotated:
        kind, *metadata = get_args(annotation)
        return next((m.text for m in metadata if isinstance(m, TypeName)), None) or type_in_words(kind) + _limits(
            metadata
        )
    if get_origin(annotation) is Literal:
        return " or ".join(json.dumps(value) for value in get_args(annotation))
    members = union_members(annotation)
    if len(members) > 1:
        if all(is_section(member) for member in members):
            return "section"
        return " or ".join(dict.fromkeys(type_in_words(member) for member in members))
    if get_origin(annotation) is tuple:
        return _describe_list(get_args(annotation))
    if get_origin(annotation) is dict:
        return "object of named sections"
    if is_section(annotation):
        return "section"
    return BASIC[annotation]


def field_annotation(field: FieldInfo) -> Any:
    """The annotation of a field with the constraints that pydantic keeps beside it."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def union_members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union (nested ones flattened), or the annotation alone."""
    if get_origin(annotation) is Annotated and get_origin(get_args(annotation)[0]) in (Union, types.UnionType):
        return union_members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(inner for member in get_args(annotation) for inner in union_members(member))
    return (annotation,)


def bare(annotation: Any) -> Any:
    """An annotation without the constraints of `Annotated`."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def is_section(annotation: Any) -> bool:
    """Whether the annotation is a config section."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that may stand at a place: one, or the variants that a key such as `name` tells apart."""
    return [member for member in map(bare, union_members(annotation)) if is_section(member)]


def key_of(name: str, field: FieldInfo) -> str:
    """The key in JSON of a model's field."""
    return field.alias or name


def variant_name(section: type[BaseModel], discriminator: str) -> str:
    """The value of the key that selects this section among variants."""
    return str(get_args(section.model_fields[discriminator].annotation)[0])


def place_at(model: type[BaseModel], location: Sequence[int | str]) -> Place:
    """Follow a location of a pydantic error into the models."""
    path: list[str] = []
    annotation: Any = model
    for part in location:
        following = _step(annotation, part)
        if following is None:
            selected = [s for s in sections_in(annotation) if _selected_by(s, part)]
            annotation = selected[0] if selected else annotation
            continue
        path.append(str(part))
        annotation = following
    return Place(".".join(path), annotation)


def _step(annotation: Any, part: int | str) -> Any:
    """The type behind a key or index, None if `part` is none (pydantic names union members in locations)."""
    for member in map(bare, union_members(annotation)):
        if get_origin(member) is dict and part != "[key]":
            return get_args(member)[1]
        if get_origin(member) is tuple and isinstance(part, int):
            kinds = get_args(member)
            return kinds[0] if kinds[-1] is Ellipsis else kinds[min(part, len(kinds) - 1)]
    sections = sections_in(annotation)
    if len(sections) != 1:
        return None
    for name, field in sections[0].model_fields.items():
        if key_of(name, field) == part:
            return field_annotation(field)
    return None if _selected_by(sections[0], part) else Any


def _selected_by(section: type[BaseModel], part: int | str) -> bool:
    literals = [f.annotation for f in section.model_fields.values() if get_origin(f.annotation) is Literal]
    return any(get_args(literal) == (part,) for literal in literals)


def _describe_list(kinds: tuple[Any, ...]) -> str:
    if kinds[-1] is Ellipsis:
        return "list of sections" if is_section(bare(kinds[0])) else f"list of {_plural(type_in_words(kinds[0]))}"
    if len(set(map(str, kinds))) == 1:
        inner = type_in_words(kinds[0])
        return f"[z, y, x], each {inner}" if len(kinds) == 3 else f"{len(kinds)} {_plural(inner)}"
    return "[" + ", ".join(map(type_in_words, kinds)) + "]"


def _plural(text: str) -> str:
    for word in ("number", "text"):
        text = text.replace(word, f"{word}s", 1) if not text.startswith("[") else text
    return text


def _limits(metadata: Sequence[Any]) -> str:
    bounds: dict[str, Any] = {}
    shortest = 0
    for constraint in _flatten(metadata):
        for name in ("ge", "gt", "le", "lt"):
            if getattr(constraint, name, None) is not None:
                bounds[name] = getattr(constraint, name)
        shortest = getattr(constraint, "min_length", None) or shortest
    if shortest:
        return f" (at least {shortest})" if shortest > 1 else " (not empty)"
    if {"ge", "le"} <= bounds.keys():
        return f" from {bounds['ge']:g} to {bounds['le']:g}"
    if bounds.get("gt") == 0 and "lt" not in bounds and "le" not in bounds:
        return " > 0"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    text = ", ".join(f"{signs[name]} {value}" for name, value in bounds.items())
    return f" {text}" if text else ""


def _flatten(metadata: Sequence[Any]) -> list[Any]:
    return [inner for item in metadata for inner in (item.metadata if isinstance(item, FieldInfo) else [item])]
