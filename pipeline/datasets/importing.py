"""Import sources into the run's containers: block by block, once, and never half.

A container whose import is complete says so in its attributes, together with the identity of the source. That
attribute is removed first and written last, so that an interrupted import is redone. See `import_source`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import FileSource, PhantomSource, PublicSource, Source, config_hash, dump_config
from ..errors import UserError
from ..run import Run
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
)
from .file_source import FileOpener
from .phantom import PhantomOpener
from .public import PublicOpener
from .source import DTYPES, OpenSource, SourceOpener

logger = logging.getLogger(__name__)

READ_LIMIT = 512 * 2**20
"""Bytes of source chunks that are decoded together at most."""
_ATTRIBUTE = "import"


def ensure_imported(run: Run, sources: Iterable[str] | None = None) -> None:
    """Import every source of the config, or those named, that is not imported yet.

    Args:
        run: the run directory.
        sources: names in `volumes.sources`. Default: all.

    Raises:
        UserError: see `import_source`; or a name is unknown.
    """
    for name, source in _chosen(run, sources):
        import_source(
            name,
            source,
            run.container(name),
            run.config.volumes.import_block,
            run.config.targets.unlabelled_id,
            run.config.storage.format,
        )


def describe_import(run: Run, sources: Iterable[str] | None = None) -> list[str]:
    """What `ensure_imported` would do, one line for each source; files are opened and checked, nothing is written.

    Public data sets are not downloaded for it.

    Raises:
        UserError: see `import_source`.
    """
    lines = []
    for name, source in _chosen(run, sources):
        if is_imported(name, source, run.container(name)):
            lines.append(f"{name}: already imported")
        elif isinstance(source, PublicSource):
            lines.append(f"{name}: would be downloaded and imported")
        else:
            with open_kind(name, source).open() as opened:
                datasets = ", ".join(f"{dataset} {dtype}" for dataset, dtype in opened.dtypes.items())
                lines.append(
                    f"{name}: would import {_by(opened.shape)} voxels of {_by(opened.voxel_size)} nm ({datasets})"
                )
    return lines


def _chosen(run: Run, names: Iterable[str] | None) -> Iterator[tuple[str, Source]]:
    sources = run.config.volumes.sources
    for name in sources if names is None else names:
        if name not in sources:
            raise UserError(f"there is no source {name!r}; there are {', '.join(sorted(sources))}", "volumes.sources")
        yield name, sources[name]


def import_source(
    name: str,
    source: Source,
    container: Path,
    import_block: Sequence[int],
    unlabelled_id: int | None = None,
    storage_format: StorageFormat = 3,
) -> bool:
    """Write `raw`, and `labels` and `mask` if there are any, of one source into a container.

    Memory depends on the block and on the chunks of the source, never on the volume. A complete import of the same
    source is left alone, even if the source is no longer there. An unfinished one is redone.

    Args:
        name: its name in `volumes.sources`.
        source: its config section.
        container: path of the zarr container.
        import_block: voxels that are written together, as one file.
        unlabelled_id: the one label that may be negative; it is stored without its sign.
        storage_format: of the container, if there is none yet.

    Returns:
        Whether something was imported.

    Raises:
        UserError: the source is missing or ambiguous, or differs from the one that was imported before, or the
        container
            cannot be written.
    """
    opener = open_kind(name, source, unlabelled_id)
    if is_imported(name, source, container, opener):
        return False
    with opener.open() as opened:
        _require_voxels(opened, f"volumes.sources.{name}")
        logger.info("importing %s: %s voxels of %s nm", name, _by(opened.shape), _by(opened.voxel_size))
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


def is_imported(name: str, source: Source, container: Path, opener: SourceOpener | None = None) -> bool:
    """Whether the import of a source is complete.

    Raises:
        UserError: it is complete, but the source has changed since.
    """
    imported = _imported_identity(container)
    if imported is None:
        return False
    current = _identity(source, opener or open_kind(name, source))
    same_data = current["data"] is None or current["data"] == imported.get("data")
    if current["section"] != imported.get("section") or not same_data:
        raise UserError(
            f"the source has changed since it was imported; use a new run_directory, or delete {container} to start"
            " over",
            f"volumes.sources.{name}",
        )
    return True


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
    section = {key: value for key, value in dump_config(source).items() if key not in ("block_shape", "cache")}
    for younger in ("sections", "mask_path"):  # imports that are older than these keys stay valid
        if section.get(younger) is None:
            section.pop(younger, None)
    return {"section": config_hash(section), "data": opener.identity()}


def _imported_identity(container: Path) -> dict[str, Any] | None:
    identity = container_attributes(container).get(_ATTRIBUTE)
    return None if identity is None else dict(identity)


def _forget(container: Path, storage_format: StorageFormat) -> None:
    """Remove what an earlier import left, its completion first."""
    ensure_container(container, storage_format)
    if _ATTRIBUTE in container_attributes(container):
        note_in_container(container, **{_ATTRIBUTE: None})
    for dataset in DTYPES:
        delete_volume(container, dataset)


def _write(name: str, opened: OpenSource, container: Path, import_block: Sequence[int]) -> None:
    volumes = _create(opened, container, import_block)
    boxes = list(_boxes(opened, import_block))
    for box in tracked(boxes, f"import {name}", len(boxes), "blocks"):
        for dataset, data in opened.reader.read(box).items():
            volumes[dataset].write(box, data)
    os.sync()  # the voxels must not be lost after the container claims to be complete


def _create(opened: OpenSource, container: Path, import_block: Sequence[int]) -> dict[str, Volume]:
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


def _by(values: Sequence[int]) -> str:
    return " x ".join(str(value) for value in values)
