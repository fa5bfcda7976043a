"""What is known of the import of a source: what it was made from, and whether that is still what the config means.

A container notes the identity of its source when every block of every dataset has been counted (`pipeline.stages`
converts them). From then on the source need not be there any more; if it is, it must not have changed.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..config import FileSource, PhantomSource, Source, config_hash, dump_config
from ..errors import UserError
from ..volumes import container_attributes, delete_volume, note_in_container, volume_exists
from ..volumes.identity import what_changed
from ..volumes.locations import Place
from ..volumes.sources import DATASETS
from .file_source import PATHS, FileOpener
from .phantom import PhantomOpener
from .public import PublicOpener
from .source import OpenSource, SourceOpener

_ATTRIBUTE = "import"
_NEUTRAL = ("allow_links", "block_shape", "cache", "copy", "intensity", "samples", "listed_chunks", "format")
"""Keys of sources that change no voxel."""
_YOUNGER = ("sections", "mask_path", "level", "channel", "time")
"""Keys that earlier versions did not have; imports of theirs stay valid."""


def is_imported(name: str, source: Source, container: Place, opener: SourceOpener | None = None) -> bool:
    """Whether the import of a source is complete.

    Raises:
        UserError: it is complete, but the source has changed since.
    """
    imported = imported_identity(container)
    if imported is None:
        return False
    opener = opener or open_kind(name, source)
    sections = [section_hash(source)] if "version" in imported else _earlier_sections(source)
    what = _changed_data(imported, opener)
    if imported.get("section") not in sections or what is not None:
        raise UserError(
            f"the source has changed since it was imported ({what or 'its config section'}); use a new run_directory,"
            f" or delete {container} to start over",
            f"volumes.sources.{name}",
        )
    return True


def _changed_data(imported: dict[str, Any], opener: SourceOpener) -> str | None:
    """What differs between the data of an import and those that are there now; None if nothing, or they are gone."""
    before, now = imported.get("data"), opener.identity()
    if now is None or before is None:
        return None
    if isinstance(opener, FileOpener):
        new = [key for key in PATHS if key in now and key not in before]
        if new:
            return f"nothing was imported of its {new[0]}"
        if any(key in before and key not in now for key in PATHS):  # as earlier versions noted arrays of chunks
            now = {**now, **opener.stamps(of_chunks=True)}
        for name, identity in before.get("volumes", {}).items():
            changed = what_changed(identity, now["volumes"][name]) if name in now.get("volumes", {}) else "it is gone"
            if changed is not None:
                return f"{changed}, in the {name}"
        before = {key: value for key, value in before.items() if key != "volumes"}
        now = {key: value for key, value in now.items() if key in before}
    return None if before == now else "other files"


def open_kind(name: str, source: Source, unlabelled_id: int | None = None) -> SourceOpener:
    """The opener for a source's kind."""
    where = f"volumes.sources.{name}"
    if isinstance(source, PhantomSource):
        return PhantomOpener(source)
    if isinstance(source, FileSource):
        return FileOpener(source, where, unlabelled_id)
    return PublicOpener(source, where)


def source_identity(source: Source, opener: SourceOpener) -> dict[str, Any]:
    """The config section, less what does not change the voxels, and the state of the data."""
    identity = {"section": section_hash(source), "data": opener.identity()}
    return {**identity, "version": 2} if isinstance(source, FileSource) else identity


def section_hash(source: Source, without: Collection[str] = ()) -> str:
    """A hash of the config section, whatever the paths are called: whether the data are others, the data say.

    Args:
        source: the section.
        without: further keys that do not count.
    """
    section = {key: value for key, value in dump_config(source).items() if key not in (*_NEUTRAL, *without)}
    for key in (*_YOUNGER, *(PATHS if isinstance(source, FileSource) else ())):
        if key in PATHS or section.get(key) is None:
            section.pop(key, None)
    return config_hash(section)


def _earlier_sections(source: Source) -> list[str]:
    """The hashes that earlier versions may have noted: with the paths as they were written then, absolute or relative
    to any folder around the data or to this one.
    """
    if not isinstance(source, FileSource):
        return [section_hash(source)]
    hashes = []
    folders = [Path.cwd(), *Path(source.path).parents] if Path(source.path).is_absolute() else []
    for folder in (None, *folders):
        section = {key: value for key, value in dump_config(source).items() if key not in _NEUTRAL}
        for key in PATHS:
            if folder is not None and section[key] is not None and Path(section[key]).is_absolute():
                section[key] = os.path.relpath(section[key], folder)
        for younger in _YOUNGER:
            if section.get(younger) is None:
                section.pop(younger, None)
        hashes.append(config_hash(section))
    return hashes


def imported_identity(container: Place) -> dict[str, Any] | None:
    """What a container notes about the source of a complete import; None if there is none."""
    identity = container_attributes(container).get(_ATTRIBUTE)
    return None if identity is None else dict(identity)


def note_imported(container: Place, identity: dict[str, Any]) -> None:
    """Note in a container that all of a source is there. To be called when that has been counted."""
    note_in_container(container, **{_ATTRIBUTE: identity})


def drop_converted(container: Place, keep: Collection[str] = ()) -> None:
    """Delete what an import has written or begun to write that is not wanted (any more)."""
    for dataset in DATASETS:
        if dataset not in keep:
            delete_volume(container, dataset)


def has_left_overs(container: Place) -> bool:
    """Whether an import has left something that was not completed."""
    return imported_identity(container) is None and any(volume_exists(container, name) for name in DATASETS)


def require_voxels(opened: OpenSource, where: str) -> None:
    """Refuse datasets without voxels.

    Raises:
        UserError: there is one.
    """
    for dataset in opened.datasets.values():
        if min(dataset.shape) < 1:
            raise UserError(f"the volume has no voxels: its shape is {tuple(dataset.shape)}", where)
