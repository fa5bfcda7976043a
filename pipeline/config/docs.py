"""docs/CONFIG.md, generated from the models so that it cannot disagree with them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from .root import Config
from .type_names import bare, field_annotation, key_of, sections_in, type_in_words, union_members

WIDTH = 110
"""Columns of everything but tables."""

INTRODUCTION = """\
# The config

One JSON file describes a run. Every key, its type and its default, section by section; keys without a default
are **required**. Unknown keys are errors, and values are never converted: `"2"` is no number. Vectors are in
the order z, y, x. Any key can be overridden on the command line: `--set 'predict.block_size=[32,256,256]'`.

`python -m pipeline.config check config.json` says whether a file is valid, `python -m pipeline.config schema`
prints the JSON Schema for editors. This page is generated: `make docs`.
"""


@dataclass
class Chapter:
    """A section of the config and every place where it may stand."""

    section: type[BaseModel]
    paths: list[str] = field(default_factory=list)
    variants: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The paths, and the key that selects the section where there is a choice."""
        paths = ", ".join(f"`{path}`" for path in self.paths)
        return f"{paths} with `{self.variants[0]}`" if self.variants else paths


def config_reference() -> str:
    """The Markdown text of docs/CONFIG.md."""
    chapters: dict[type[BaseModel], Chapter] = {}
    _collect(Config, "", chapters)
    root, *others = chapters.values()
    parts = [INTRODUCTION, _table(root.section, "", chapters)]
    parts += [
        f"## {c.title}\n\n{_filled(c.section.__doc__)}\n\n{_table(c.section, c.paths[0], chapters)}" for c in others
    ]
    return "\n".join(parts)


def _collect(section: type[BaseModel], path: str, chapters: dict[type[BaseModel], Chapter], variant: str = "") -> None:
    """Visit a section and those inside it, depth first, in the order of the models."""
    chapter = chapters.setdefault(section, Chapter(section))
    chapter.paths.append(path)
    if variant:
        chapter.variants.append(variant)
    for name, model_field in _ordered_fields(section):
        for inner_path, inner, inner_variant in _inner_sections(f"{path}.{key_of(name, model_field)}", model_field):
            _collect(inner, inner_path.lstrip("."), chapters, inner_variant)


def _ordered_fields(section: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """The fields of a section, what selects a variant first; those of the root in the order in which data travel."""
    fields = section.model_fields
    if section is Config:
        own = [name for name in fields if name in Config.__annotations__]
        fields = {name: fields[name] for name in [*own, *fields]}
    return sorted(fields.items(), key=lambda item: not _selects_variant(item[1]))


def _selects_variant(model_field: FieldInfo) -> bool:
    return get_origin(model_field.annotation) is Literal and len(get_args(model_field.annotation)) == 1


def _inner_sections(path: str, model_field: FieldInfo) -> Iterator[tuple[str, type[BaseModel], str]]:
    for member in map(bare, union_members(field_annotation(model_field))):
        arguments = get_args(member)
        if get_origin(member) is dict:
            yield from _variants(f"{path}.<name>", arguments[1])
        elif get_origin(member) is tuple and sections_in(arguments[0]):
            yield from _variants(f"{path}.<index>", arguments[0])
    yield from _variants(path, field_annotation(model_field))


def _variants(path: str, annotation: Any) -> Iterator[tuple[str, type[BaseModel], str]]:
    sections = sections_in(annotation)
    for section in sections:
        selector = ""
        if len(sections) > 1:
            key, model_field = _ordered_fields(section)[0]
            selector = f'"{key}": "{model_field.default}"'
        yield path, section, selector


def _table(section: type[BaseModel], path: str, chapters: dict[type[BaseModel], Chapter]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, model_field in _ordered_fields(section):
        key = key_of(name, model_field)
        inner = [chapters[s] for _, s, _ in _inner_sections(f"{path}.{key}", model_field)]
        kind = type_in_words(field_annotation(model_field))
        if inner:
            kind += ": " + ", ".join(f"[{_label(c)}](#{_anchor(c.title)})" for c in inner)
        cells = [f"`{key}`", kind, _default(model_field), _text(_description(section, name))]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _label(chapter: Chapter) -> str:
    return chapter.variants[0].partition(": ")[2].strip('"') if chapter.variants else "keys"


def _anchor(title: str) -> str:
    """The anchor that GitHub makes of a heading."""
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " _-")
    return kept.replace(" ", "-")


def _default(model_field: FieldInfo) -> str:
    if model_field.is_required():
        return "**required**"
    if isinstance(model_field.default, BaseModel):
        return "its defaults"
    return f"`{json.dumps(TypeAdapter(Any).dump_python(model_field.default, mode='json'))}`"


def _description(section: type[BaseModel], name: str) -> str:
    """The docstring under the field, or under the one that it overrides."""
    for ancestor in section.__mro__:
        description = getattr(ancestor, "model_fields", {}).get(name)
        if description is not None and description.description:
            return str(description.description)
    return "Selects this variant."


def _filled(docstring: str | None) -> str:
    """A docstring in lines of `WIDTH`."""
    paragraphs = _text(docstring).split("\n\n")
    return "\n\n".join(
        textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False) for text in paragraphs
    )


def _text(docstring: str | None) -> str:
    """A docstring with its line breaks undone inside paragraphs."""
    paragraphs = (docstring or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).strip()
