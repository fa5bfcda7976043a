"""Read a config file, apply overrides, and turn every mistake into one clear line."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import UserError
from .root import Config


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Load and validate a config.

    Args:
        path: a JSON file.
        overrides: `dotted.key=value` strings; values are parsed as JSON, and taken as text where they are not JSON.

    Returns:
        The validated config, with `run_directory` as an absolute path.

    Raises:
        UserError: the file is missing or no JSON, a key is unknown, a value has the wrong type or range.
    """
    path = Path(path)
    document = _read_json(path)
    for override in overrides:
        apply_override(document, override)
    config = parse_config(document)
    base = path.resolve().parent if config.run_directory == "." else Path.cwd()
    run_directory = (base / Path(config.run_directory).expanduser()).resolve()
    return config.model_copy(update={"run_directory": str(run_directory)})


def parse_config(document: dict[str, Any]) -> Config:
    """Validate a config that is already a dictionary of JSON values.

    Raises:
        UserError: names the first mistake by its dotted path.
    """
    try:
        return Config.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise _as_user_error(error, document) from None


def dump_config(config: BaseModel) -> dict[str, Any]:
    """The config as JSON values, complete with defaults."""
    return config.model_dump(mode="json", by_alias=True)


def config_hash(*parts: Any) -> str:
    """A short, stable hash of JSON values or config sections (16 hexadecimal digits)."""
    values = [dump_config(part) if isinstance(part, BaseModel) else part for part in parts]
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def apply_override(document: dict[str, Any], override: str) -> None:
    """Set one `dotted.key=value` in a dictionary of JSON values, in place.

    Raises:
        UserError: no `=`, or the path runs through a value that has no keys.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set expects dotted.key=value, got {override!r}", "--set")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    *parents, last = key.split(".")
    node: Any = document
    for parent in parents:
        node = _descend(node, parent, key)
    if isinstance(node, list):
        node[_list_index(node, last, key)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise UserError("the path runs through a value that has no keys", key)


def _descend(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_list_index(node, part, key)]
    if not isinstance(node, dict):
        raise UserError("the path runs through a value that has no keys", key)
    if node.get(part) is None:
        node[part] = {}
    return node[part]


def _list_index(node: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise UserError(f"{part!r} is no index of a list of {len(node)} values", key)
    return int(part)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError("no such config file; give its path, or run where a config.json lies", str(path)) from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as a config: {error}", str(path)) from None
    except json.JSONDecodeError as error:
        raise UserError(f"line {error.lineno}, column {error.colno}: {error.msg}", str(path)) from None
    if not isinstance(document, dict):
        raise UserError("a config is a JSON object, {...}", str(path))
    return document


def _as_user_error(error: ValidationError, document: dict[str, Any]) -> UserError:
    first = error.errors()[0]
    where = _dotted_path(first["loc"], document)
    if first["type"] == "extra_forbidden":
        return UserError(f"unknown key{_suggestion(first['loc'], document)}", where)
    if first["type"] == "missing":
        return UserError("this key is required", where)
    message = str(first["msg"]).removeprefix("Value error, ")
    given = first.get("input")
    if first["type"] != "value_error" and not isinstance(given, dict | list):
        message = f"{message}, got {json.dumps(given, default=str)}"
    if len(error.errors()) > 1:
        message = f"{message} (and {len(error.errors()) - 1} more)"
    return UserError(message, where or "config")


def _dotted_path(location: tuple[int | str, ...], document: Any) -> str:
    """The path as the user wrote it: without the names of union members that pydantic puts in between."""
    parts: list[str] = []
    node: Any = document
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(node, dict) and (part in node or last):
            node = node.get(str(part))
        elif isinstance(node, list) and isinstance(part, int):
            node = node[part] if part < len(node) else None
        else:
            continue
        parts.append(str(part))
    return ".".join(parts)


def _suggestion(location: tuple[int | str, ...], document: dict[str, Any]) -> str:
    known = sorted(_known_keys(Config))
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else "; see docs/CONFIG.md for the keys of this section"


def _known_keys(model: type[BaseModel]) -> set[str]:
    schema = model.model_json_schema()
    keys = set(schema.get("properties", {}))
    for definition in schema.get("$defs", {}).values():
        keys |= set(definition.get("properties", {}))
    return keys
