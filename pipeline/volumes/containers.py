"""Arrays inside containers: the one that the config names, or customary names, without opening any other.

Only the metadata of what is asked for are read. An array next to it whose codec nobody knows, or ten thousand arrays
next to it, are none of our business.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .formats import Node, look
from .locations import Location
from .storage import read_files

LISTED_IN_MESSAGES = 10


@dataclass(frozen=True)
class Found:
    """An array, and the groups around it, the nearest first.

    Attributes:
        array: the array.
        groups: groups that contain it, each with the path of the array inside.
        level: which level of a pyramid it is, if it was found as one.
    """

    array: Node
    groups: tuple[tuple[Node, str], ...] = ()
    level: int | str | None = None

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return self.array.name


def find_array(
    container: Node,
    dataset: str | None,
    candidates: Sequence[str] = (),
    *,
    level: int | str | None = None,
    where: str = "",
    level_where: str = "",
) -> Found | None:
    """The array that is named, or the one customary name that exists; of a pyramid the level that is named.

    Args:
        container: an array, or a group of zarr or N5.
        dataset: path inside; None to look for a candidate.
        candidates: customary paths.
        level: of a pyramid: its number, 0 for the finest, or its path. Default: the finest.
        where, level_where: dotted config paths of `dataset` and `level`, for messages.

    Returns:
        None if no name is given and no candidate exists.

    Raises:
        UserError: there is no such array or level, or there are several candidates.
    """
    if container.is_array or dataset in ("", "/", "."):
        return _at_level(container, container, level, level_where or where)
    if dataset is not None:
        found = _look_inside(container, dataset)
        if found is None:
            raise UserError(f"{container.name} has no dataset {dataset!r}; it has {listing(container)}", where)
        return _at_level(found, container, level, level_where or where)
    if levels_of(container):
        return _at_level(container, container, level, level_where or where)
    existing = [node for name in candidates if (node := _look_inside(container, name)) and _holds_array(node)]
    if len(existing) > 1:
        names = ", ".join(_inside(container, node) for node in existing)
        raise UserError(f"{container.name} has several candidates ({names}); name one of them", where)
    return _at_level(existing[0], container, level, level_where or where) if existing else None


def only_array(container: Node, where: str = "") -> Found | None:
    """The array of a container that holds a single one; None if it holds several, or none, or cannot be listed."""
    first_two = [name for name, _ in zip(array_names(container), range(2), strict=False)]
    return find_array(container, first_two[0], where=where) if len(first_two) == 1 else None


def array_names(container: Node) -> Iterator[str]:
    """Paths of the arrays and images inside a container; nothing of what a server does not list."""
    location = container.location
    if container.is_array:
        yield ""
    elif location.is_local:
        yield from _local_names(location.file, location.file)
    else:
        yield from sorted(_consolidated(container))


def listing(container: Node) -> str:
    """Paths of some arrays of a container, for a message."""
    names = [name for name, _ in zip(array_names(container), range(LISTED_IN_MESSAGES + 1), strict=False)]
    if not names:
        return "none" if container.location.is_local else "no list of what it has (no consolidated metadata)"
    return ", ".join(names[:LISTED_IN_MESSAGES]) + (", …" if len(names) > LISTED_IN_MESSAGES else "")


def levels_of(group: Node) -> list[str]:
    """Paths of the levels of a pyramid, the finest first; empty if a group is none.

    OME-NGFF says so; of N5 groups, the customary `s0`, `s1`, … count, if the first exists.
    """
    multiscales = multiscales_of(group)
    if multiscales:
        datasets = multiscales[0].get("datasets") or []
        return [str(item.get("path", "")) for item in datasets if isinstance(item, Mapping)]
    if group.is_array or (first := look(group.location.child("s0"), group.format)) is None or not first.is_array:
        return []
    declared = group.attributes.get("scales") or group.attributes.get("downsamplingFactors") or [None]
    count = len(declared) if isinstance(declared, list) else 1
    names = [f"s{number}" for number in range(count)]
    while group.location.is_local and (group.location.file / f"s{len(names)}").is_dir():
        names.append(f"s{len(names)}")
    return names


def level_count(found: Found) -> int:
    """How many levels the pyramid has that an array was found in; 1 if it was found in none."""
    if found.array.format == "precomputed":
        return len(found.array.metadata.get("scales", ()))
    return len(levels_of(found.groups[0][0])) if found.level is not None and found.groups else 1


def multiscales_of(group: Node) -> list[Mapping[str, Any]]:
    """The OME-NGFF pyramids that a group declares, as versions up to 0.4 or from 0.5 on write them."""
    ome = group.attributes.get("ome")
    declared = ome.get("multiscales") if isinstance(ome, Mapping) else group.attributes.get("multiscales")
    items = declared if isinstance(declared, list) else []
    return [item for item in items if isinstance(item, Mapping) and item.get("datasets")]


def _at_level(node: Node, container: Node, level: int | str | None, where: str) -> Found:
    """An array as it is, or the level of the pyramid that a group is."""
    if node.format == "precomputed":
        return Found(node, level=0 if level is None else level)
    if node.is_array:
        if level is not None:
            raise UserError(f"{node.name} is one array and has no levels; leave this out", where)
        return Found(node, _groups_around(node, container))
    levels = levels_of(node)
    if not levels:
        raise UserError(f"{node.name} is a group, not an array; name one of its arrays: {listing(node)}", where)
    path = _level_path(levels, 0 if level is None else level, node, where)
    found = look(node.location.child(path), node.format)
    if found is None or not found.is_array:
        raise UserError(f"{node.name} declares the level {path!r}, but there is no such array", where)
    return Found(found, _groups_around(found, container), levels.index(path) if path in levels else path)


def _level_path(levels: Sequence[str], level: int | str, node: Node, where: str) -> str:
    if isinstance(level, str):
        if level not in levels:
            raise UserError(f"{node.name} has no level {level!r}; it has {', '.join(levels)}", where)
        return level
    if not 0 <= level < len(levels):
        raise UserError(f"{node.name} has the levels 0 to {len(levels) - 1}, not {level}", where)
    return levels[level]


def _groups_around(array: Node, container: Node) -> tuple[tuple[Node, str], ...]:
    """Groups from the array outwards: to the container that was named, and on while there are groups around it."""
    groups: list[tuple[Node, str]] = []
    inside, location = "", array.location
    beyond = location == container.location
    while (parent := location.parent) is not None and parent.path.strip("/"):
        inside = f"{location.path.rpartition('/')[2]}/{inside}".rstrip("/")
        location = parent
        group = look(location, array.format)
        if group is not None and not group.is_array and (group.metadata or group.attributes):
            groups.append((group, inside))
        elif beyond:
            break
        beyond = beyond or location == container.location
    return tuple(groups)


def _look_inside(container: Node, name: str) -> Node | None:
    """What lies at a path inside a container, if anything; never outside."""
    parts = [part for part in name.split("/") if part]
    if any(part in (".", "..") for part in parts):
        return None
    return look(container.location.child("/".join(parts)), container.format)


def _holds_array(node: Node) -> bool:
    return node.is_array or bool(levels_of(node))


def _inside(container: Node, node: Node) -> str:
    return node.location.path[len(container.location.path) :].strip("/")


def _local_names(root: Path, folder: Path) -> Iterator[str]:
    """Arrays below a folder in the order of their names, an image of OME-NGFF for its levels; folders of chunks are not
    entered.
    """
    with os.scandir(folder) as entries:
        names = {entry.name: entry.is_dir() for entry in entries}
    if any(name in names for name in (".zarray", "info")) or _says_array(folder, names):
        yield str(folder.relative_to(root))
        return
    levels = _levels_inside(folder, names)
    if levels:
        yield str(folder.relative_to(root))
    for name in sorted(name for name, is_folder in names.items() if is_folder and name not in levels):
        yield from _local_names(root, folder / name)


def _levels_inside(folder: Path, names: Mapping[str, bool]) -> set[str]:
    """Names of the folders that are levels of the pyramid that a folder of OME-NGFF is, if it is one."""
    for file in (".zattrs", "zarr.json"):
        if file in names and b'"multiscales"' in (folder / file).read_bytes():
            try:
                node = look(Location.of(str(folder)))
            except UserError:  # whoever asks for another array need not mend this one
                return set()
            return {path.split("/")[0] for path in levels_of(node)} if node is not None else set()
    return set()


def _says_array(folder: Path, names: Mapping[str, bool]) -> bool:
    """Whether a zarr 3 or N5 metadata file describes an array; its keys are looked for, not understood."""
    for file, mark in (("zarr.json", b'"array"'), ("attributes.json", b'"dimensions"')):
        if file in names:
            text = (folder / file).read_bytes()
            return mark in text and (file != "attributes.json" or b'"blockSize"' in text)
    return False


def _consolidated(container: Node) -> set[str]:
    """Arrays that the consolidated metadata of a zarr group list."""
    if container.format == "zarr2":
        files = read_files(container.location, [".zmetadata"])
        keys = json.loads(files[".zmetadata"]).get("metadata", {}) if files else {}
        return {key.removesuffix("/.zarray") for key in keys if key.endswith("/.zarray")}
    document = container.metadata.get("consolidated_metadata")
    entries = document.get("metadata", {}) if isinstance(document, Mapping) else {}
    return {name for name, item in entries.items() if isinstance(item, Mapping) and item.get("node_type") == "array"}
