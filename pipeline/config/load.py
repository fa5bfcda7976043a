"""Read a config file, apply overrides, and turn every mistake into one clear line."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from ..errors import UserError
from .impossible_values import refuse_impossible_paths, refuse_impossible_values
from .mistakes import first_mistake
from .networks import NetworkConfig
from .paths import absolute
from .pretrained import for_another_student, named_student, pretrained_name, read_card, with_card
from .root import Config


def load_config(config: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | Iterable[str] = ()) -> Config:
    """Load and validate a config.

    Args:
        config: a JSON file, or its content.
        overrides: values by dotted key; or `dotted.key=value` strings, whose values are parsed as JSON, and taken as
            text where they are not JSON.

    Returns:
        The validated config, with `run_directory` and all other paths absolute. Relative ones count from the current
        directory, or from that of a run; in a file whose `run_directory` is `.`, first from the folder of the file.

    Raises:
        UserError: the file is missing or no JSON, a key is unknown, a value has the wrong type or range.

    What the card of a ready-made student says counts where the config says nothing, see `with_card`.
    """
    document, folder = _document_and_folder(config)
    if isinstance(overrides, Mapping):
        overrides = [f"{key}={_to_json(value)}" for key, value in overrides.items()]
    document = _overridden(document, list(overrides))
    refuse_impossible_values(document)
    document = with_card(document)
    parsed = parse_config(document)
    _require_network_of_card(parsed)
    refuse_impossible_paths(document)
    base = folder if parsed.run_directory == "." else Path.cwd()
    run_directory = (base / Path(parsed.run_directory).expanduser()).resolve()
    folders = dict.fromkeys((base, Path.cwd(), run_directory))
    return parse_config({**absolute(document, tuple(folders)), "run_directory": str(run_directory)})


def _overridden(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A config with other values; if they name another ready-made student than a stored config does, without what the
    card of the former one has put there.
    """
    former, changed = named_student(document), _with_values(document, overrides)
    other, is_stored = named_student(changed), document.get("run_directory") == "."
    if not is_stored or former is None or other is None or other == former:
        return changed
    said = {override.partition("=")[0] for override in overrides}
    return _with_values(for_another_student(document, former, other, said), overrides)


def _with_values(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    for override in overrides:
        apply_override(changed, override)
    return changed


def parse_config(document: dict[str, Any]) -> Config:
    """Validate a config that is already a dictionary of JSON values.

    Raises:
        UserError: names the first mistake by its dotted path.
    """
    try:
        return Config.model_validate_json(json.dumps(_with_kind_of_teacher(document)))
    except ValidationError as error:
        raise first_mistake(error, Config) from None


def _with_kind_of_teacher(document: dict[str, Any]) -> dict[str, Any]:
    """A config whose teacher says its kind; it is a network where nothing else is said."""
    teacher = document.get("teacher")
    if not isinstance(teacher, dict) or "kind" in teacher:
        return document
    return {**document, "teacher": {"kind": "network", **teacher}}


def _require_network_of_card(config: Config) -> None:
    """Make sure that a ready-made student predicts as the network that it is.

    Raises:
        UserError: the config describes another one; names the first key that differs.
    """
    name = pretrained_name(config.predict.checkpoint)
    if name is None:
        return
    if config.predict.network != "student":
        raise UserError(f"pretrained:{name} is a student, not a {config.predict.network}", "predict.network")
    network = json.dumps(read_card(name).config["student"]["network"])
    trained: NetworkConfig = TypeAdapter(NetworkConfig).validate_json(network)
    have, want = dump_config(trained), dump_config(config.student.network)
    for key in ("name", *want):
        if have.get(key) != want[key]:
            raise UserError(
                f"pretrained:{name} has {json.dumps(have.get(key))} there, not {json.dumps(want[key])}; leave"
                " student.network out, or name a checkpoint that you trained",
                f"student.network.{key}",
            )


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
    if not separator or not all(key.split(".")):
        raise UserError(f"--set expects dotted.key=value, got {override!r}", "--set")
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError, _UnfitJson):
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
    if not part.isdecimal() or int(part) >= len(node):
        raise UserError(f"{part!r} is no index of a list of {len(node)} values", key)
    return int(part)


def _document_and_folder(config: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """The content of a config, and the folder that `.` means in it."""
    if isinstance(config, Mapping):
        return json.loads(_to_json(config)), Path.cwd()
    return _read_json(Path(config)), Path(config).resolve().parent


def _to_json(value: Any) -> str:
    """JSON of a value from Python; paths are text."""
    return json.dumps(dict(value) if isinstance(value, Mapping) else value, default=os.fspath)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except FileNotFoundError:
        raise UserError("no such config file; give its path, or run where a config.json lies", str(path)) from None
    except UnicodeDecodeError:
        raise UserError("cannot be read as a config: it is no UTF-8 text", str(path)) from None
    except OSError as error:
        raise UserError(f"cannot be read as a config: {error.strerror}", str(path)) from None
    except json.JSONDecodeError as error:
        raise UserError(f"line {error.lineno}, column {error.colno}: {error.msg}", str(path)) from None
    except RecursionError:
        raise UserError("cannot be read as a config: it is nested too deep", str(path)) from None
    except ValueError as error:
        raise UserError(f"cannot be read as a config: {str(error).partition(';')[0]}", str(path)) from None
    except _UnfitJson as error:
        raise UserError(str(error), str(path)) from None
    if not isinstance(document, dict):
        raise UserError("a config is a JSON object, {...}", str(path))
    return document


class _UnfitJson(Exception):
    """JSON that Python reads but that no config should contain."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _UnfitJson(f"the key {twice!r} appears twice in one section")
    return document


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _UnfitJson(f"{text} is more than a number can be")
    return value


def _refuse_constant(name: str) -> Any:
    raise _UnfitJson(f"{name} is no JSON number")
