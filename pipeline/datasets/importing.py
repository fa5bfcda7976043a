"""Import sources into the run's containers: block by block, once, and never half.

A container whose import is complete says so in its attributes, together with the identity of the source. That
attribute is removed first and written last, so that an interrupted import is redone. See `import_source`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import FileSource, PhantomSource, Source, config_hash, dump_config
from ..errors import UserError
from ..terminal import tracked
from ..volumes import (
    Box,
    StorageFormat,
    Volume,
    container_attributes,
    create_volume,
    delete_volume,
    ensure_container,
    note_in_container,
    volume_exists,
)
from ..volumes.identity import what_changed
from ..volumes.locations import Place
from ..volumes.placement import by
from ..volumes.sources import DATASETS
from .file_source import PATHS, FileOpener
from .phantom import PhantomOpener
from .public import PublicOpener
from .source import OpenSource, SourceOpener

logger = logging.getLogger(__name__)

READ_LIMIT = 512 * 2**20
"""Bytes of source chunks that are decoded together at most."""
_ATTRIBUTE = "import"
_NEUTRAL = ("block_shape", "cache", "copy", "intensity", "samples", "listed_chunks", "format")
"""Keys of sources that change no voxel."""
_YOUNGER = ("sections", "mask_path", "level", "channel", "time")
"""Keys that earlier versions did not have; imports of theirs stay valid."""


def import_source(
    name: str,
    source: Source,
    container: Place,
    import_block: Sequence[int],
    *,
    unlabelled_id: int | None = None,
    all_datasets: bool = True,
    storage_format: StorageFormat = 3,
) -> bool:
    """Write `raw`, and `labels` and `mask` if there are any, of one source into a container.

    Memory depends on the block and on the chunks of the source, never on the volume. A complete import of the same
    source is left alone, even if the source is no longer there. An unfinished one is redone.

    Args:
        name: its name in `volumes.sources`.
        source: its config section.
        container: path or location of the zarr container.
        import_block: voxels that are written together, as one file.
        unlabelled_id: the label that means "not annotated"; it may be negative, no other may.
        all_datasets: also those that could be read where they are.
        storage_format: of the container, if there is none yet.

    Returns:
        Whether something was imported.

    Raises:
        UserError: the source is missing or ambiguous, or differs from the one that was imported before, or the
            container cannot be written.
    """
    opener = open_kind(name, source, unlabelled_id)
    if isinstance(opener, FileOpener):
        opener = replace(opener, all_datasets=all_datasets)
    if is_imported(name, source, container, opener):
        return False
    with opener.open() as opened:
        if not opened.dtypes and not opened.others:
            return False
        _require_voxels(opened, f"volumes.sources.{name}")
        logger.info("importing %s: %s voxels of %s nm", name, by(opened.shape), by(opened.voxel_size))
        identity = _identity(source, opener)
        try:
            _forget(container, storage_format)
            try:
                _write(name, opened, container, import_block)
            except UserError:
                _forget(container, storage_format)
                raise
            note_in_container(container, **{_ATTRIBUTE: identity})
        except OSError as error:
            raise UserError(
                f"cannot be written: {error.strerror or error}; make room or choose another run_directory, and run"
                " again",
                str(container),
            ) from error
    return True


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
            f"the source has changed since it was imported{f' ({what})' if what else ''}; use a new run_directory, or"
            f" delete {container} to start over",
            f"volumes.sources.{name}",
        )
    return True


def _changed_data(imported: dict[str, Any], opener: SourceOpener) -> str | None:
    """What differs between the data of an import and those that are there now; None if nothing, or they are gone."""
    before, now = imported.get("data"), opener.identity()
    if now is None or before is None:
        return None
    if isinstance(opener, FileOpener):
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


def _identity(source: Source, opener: SourceOpener) -> dict[str, Any]:
    """The config section, less what does not change the voxels, and the state of the data."""
    identity = {"section": section_hash(source), "data": opener.identity()}
    return {**identity, "version": 2} if isinstance(source, FileSource) else identity


def section_hash(source: Source) -> str:
    """A hash of the config section, whatever the paths are called: whether the data are others, the data say."""
    section = {key: value for key, value in dump_config(source).items() if key not in _NEUTRAL}
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


def _forget(container: Place, storage_format: StorageFormat) -> None:
    """Remove what an earlier import left, its completion first."""
    ensure_container(container, storage_format)
    if _ATTRIBUTE in container_attributes(container):
        note_in_container(container, **{_ATTRIBUTE: None})
    for dataset in DATASETS:
        delete_volume(container, dataset)


def forget_left_overs(container: Place) -> None:
    """Remove what an import left that was begun, but is not wanted any more."""
    if imported_identity(container) is not None:
        return
    for dataset in DATASETS:
        if volume_exists(container, dataset):
            delete_volume(container, dataset)


def _write(name: str, opened: OpenSource, container: Place, import_block: Sequence[int]) -> None:
    for part in (opened, *opened.others):
        volumes = _create(part, container, import_block)
        boxes = list(_boxes(part, import_block)) if volumes else []
        for box in tracked(boxes, f"import {name}", len(boxes), "blocks"):
            for dataset, data in part.reader.read(box).items():
                volumes[dataset].write(box, data)
    os.sync()  # the voxels must not be lost after the container claims to be complete


def _create(opened: OpenSource, container: Place, import_block: Sequence[int]) -> dict[str, Volume]:
    return {
        dataset: create_volume(
            container,
            dataset,
            opened.shape,
            dtype,
            voxel_size=opened.voxel_size,
            offset=opened.offset,
            chunks=import_block,
        )
        for dataset, dtype in opened.dtypes.items()
    }


def _boxes(opened: OpenSource, import_block: Sequence[int]) -> Iterator[Box]:
    """Boxes of whole blocks that cover the volume, large enough that few chunks of the source are decoded twice."""
    steps = [
        block * -(-min(chunk, extent) // block)
        for block, chunk, extent in zip(import_block, opened.chunks, opened.shape, strict=True)
    ]
    bytes_per_voxel = sum(np.dtype(dtype).itemsize for dtype in opened.dtypes.values())
    if np.prod(steps, dtype=np.int64) * bytes_per_voxel > READ_LIMIT:
        steps = list(import_block)
    return Box.of_shape(opened.shape).split(steps)


def _require_voxels(opened: OpenSource, where: str) -> None:
    if min(opened.shape) < 1:
        raise UserError(f"the volume has no voxels: its shape is {tuple(opened.shape)}", where)
