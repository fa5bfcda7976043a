"""Values that are JSON, and that no config can mean: numbers that no machine has, texts that are no text, no end of
brackets; and paths of which no system could say whether they exist.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from ..errors import UserError
from .paths import KEYS, is_relative

DEEPEST = 64
"""Sections and lists in each other."""
LARGEST = 2**64 - 1
"""The largest whole number: a label may need 64 bits, and nothing needs more."""
QUOTED = 40
"""Letters of a path in a message."""


def refuse_impossible_values(document: Any) -> None:
    """Make sure that all numbers and texts of a config are such as a program can work with.

    Raises:
        UserError: names the first that is not, by its dotted path.
    """
    rest: list[tuple[Any, tuple[str, ...]]] = [(document, ())]
    while rest:
        value, place = rest.pop()
        reason = _what_is_impossible(value, len(place))
        if reason is not None:
            raise UserError(reason, ".".join(place[:DEEPEST]) or "config")
        if isinstance(value, dict):
            rest += [(part, (*place, str(key))) for key, part in value.items()]
            rest += [(key, (*place, "[key]")) for key in value]
        elif isinstance(value, list):
            rest += [(part, (*place, str(index))) for index, part in enumerate(value)]


def refuse_impossible_paths(document: dict[str, Any]) -> None:
    """Make sure that every path can be looked for; whether something is there is another matter.

    Raises:
        UserError: names the first that cannot, by its dotted path.
    """
    for key in ("run_directory", *KEYS):
        for where, text in _texts_at(document, key.split("."), ()):
            _refuse_impossible(text, where)


def _what_is_impossible(value: Any, depth: int) -> str | None:
    if depth > DEEPEST:
        return f"is nested in more than {DEEPEST} sections and lists"
    if isinstance(value, int) and abs(value) > LARGEST:
        return "is a number that 64 bits do not hold"
    if isinstance(value, float) and not math.isfinite(value):
        return "is no finite number"
    if isinstance(value, str):
        if "\0" in value:
            return "has a NUL in it, which no text or path may have"
        try:
            os.fsencode(value)
        except UnicodeEncodeError:
            return "is no text: it has half of a letter (a lone surrogate)"
    return None


def _refuse_impossible(text: str, where: str) -> None:
    if not text or (not is_relative(text) and not text.startswith(("~", "/"))):
        return  # a URL, or a variable
    try:
        Path(text).expanduser().exists()
    except RuntimeError:
        raise UserError(f"there is no user {text.split('/')[0][1:]!r} with a home folder here", where) from None
    except (OSError, ValueError) as error:
        shown = text if len(text) <= QUOTED else f"{text[:QUOTED]}…"
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"cannot be a path ({reason}): {shown}", where) from None


def _texts_at(node: Any, keys: list[str], place: tuple[str, ...]) -> list[tuple[str, str]]:
    """The texts at a dotted path, in which `*` stands for any name."""
    if not keys:
        return [(".".join(place), node)] if isinstance(node, str) else []
    if not isinstance(node, dict):
        return []
    names = list(node) if keys[0] == "*" else [name for name in (keys[0],) if name in node]
    return [found for name in names for found in _texts_at(node[name], keys[1:], (*place, name))]
