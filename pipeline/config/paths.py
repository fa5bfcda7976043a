"""Paths in a config: what relative ones are relative to, and how they are written into a run directory.

While a program runs, all paths are absolute, so that no working directory of a worker matters. In the `config.json` of
a run directory, those inside the directory are relative to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEYS = (
    "volumes.sources.*.path",
    "volumes.sources.*.labels_path",
    "volumes.sources.*.mask_path",
    "volumes.sources.*.allow_links",
    "volumes.sources.*.cache",
    "teacher.checkpoint",
    "teacher.affinities.*.paths",
    "teacher.affinities.*.allow_links",
    "teacher.module",
    "student.distillation.graph_flow.paraphraser.checkpoint",
    "predict.checkpoint",
    "agglomerate.never_join.path",
    "agglomerate.never_join.allow_links",
    "storage.location",
)
"""Dotted paths of all keys that hold paths; `*` stands for any name."""

_ELSEWHERE = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://|pretrained:|~|\$)")
"""What begins so is no relative path: URLs, ready-made students, home folders, variables."""


def is_relative(text: str) -> bool:
    """Whether a text is a path whose meaning depends on a folder."""
    return not _ELSEWHERE.match(text) and not Path(text).is_absolute()


def absolute(document: dict[str, Any], folders: tuple[Path, ...]) -> dict[str, Any]:
    """A config whose relative paths are absolute.

    Args:
        document: JSON values.
        folders: what they may be relative to; the first in which there is such a file counts, otherwise the first.
    """

    def resolved(text: str) -> str:
        if not text or not is_relative(text):
            return text
        candidates = [os.path.normpath(folder / text) for folder in folders]
        return next((path for path in candidates if Path(path).exists()), candidates[0])

    return _changed(document, resolved)


def portable(document: dict[str, Any], directory: Path) -> dict[str, Any]:
    """A config for the directory of a run: paths inside it are relative to it, all others absolute."""

    def relative(text: str) -> str:
        if _ELSEWHERE.match(text):
            return text
        path = Path(os.path.normpath(Path.cwd() / text))
        return str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path)

    return _changed(document, relative)


def _changed(document: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """A copy of a config in which all paths went through a function."""
    changed = document
    for key in KEYS:
        changed = _changed_at(changed, key.split("."), change)
    return changed


def _changed_at(node: Any, keys: list[str], change: Callable[[str], str]) -> Any:
    if not keys:
        if isinstance(node, list | tuple):
            return [_changed_at(item, keys, change) for item in node]
        return change(node) if isinstance(node, str) else node
    if not isinstance(node, dict):
        return node
    names = list(node) if keys[0] == "*" else [name for name in (keys[0],) if name in node]
    return {**node, **{name: _changed_at(node[name], keys[1:], change) for name in names}}
