"""Make the sources of a run ready to be read: look at those that stay where they are, convert the others.

What is converted goes into a container of the run, block by block, once, and never half: a container whose import is
complete says so in its attributes, together with the identity of the source. That attribute is removed first and
written last, so that an interrupted import is redone. What is read in place is looked at once: `sources/<name>.json` of
the run then says how to recognise it, and the intensities that were measured.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..config import FileSource, PhantomSource, PublicSource, Source, config_hash, dump_config
from ..errors import UserError
from ..run import Run, write_json
from ..terminal import tracked
from ..volumes import Box, Volume, create_volume, delete_volume
from ..volumes.identity import Identity, what_changed
from ..volumes.intensity import IntensityRange, intensity_range, strong_difference
from ..volumes.placement import by
from ..volumes.run_sources import RunSource
from ..volumes.sources import DATASETS
from .describing import describe
from .file_source import PATHS, FileOpener
from .phantom import PhantomOpener
from .public import PublicOpener
from .source import OpenSource, SourceOpener

logger = logging.getLogger(__name__)

READ_LIMIT = 512 * 2**20
"""Bytes of source chunks that are decoded together at most."""
_ATTRIBUTE = "import"
_NEUTRAL = ("block_shape", "cache", "copy", "intensity", "samples", "format")
"""Keys of sources that change no voxel."""
_YOUNGER = ("sections", "mask_path", "level", "channel", "time")
"""Keys that earlier versions did not have; imports of theirs stay valid."""


def ensure_imported(run: Run, sources: Iterable[str] | None = None) -> None:
    """Convert what must be, and look at what is read in place, of every source of the config or those named.

    Args:
        run: the run directory.
        sources: names in `volumes.sources`. Default: all.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: see `import_source` and `look_at`; or a name is unknown.
    """
    for name, section in _chosen(run, sources):
        source = run.source(name)
        in_place = source.datasets_in_place()
        before = source.read_record()
        if len(in_place) < len(DATASETS):
            import_source(
                name,
                section,
                source.container,
                run.config.volumes.import_block,
                unlabelled_id=source.unlabelled_id,
                all_datasets="raw" not in in_place and not in_place,
            )
        elif _has_left_overs(source.container):
            _forget(source.container)
        look_at(source, in_place)
        if not before:
            logger.info(describe(source, run.config.volumes))
    _tell_ranges(run)


def is_ready(run: Run, name: str) -> bool:
    """Whether raw of a source can be read: converted, or looked at where it is."""
    source = run.source(name)
    return source.is_converted("raw") or "raw" in source.read_record().get("volumes", {})


def look_at(source: RunSource, in_place: Sequence[str]) -> None:
    """Note what tells whether volumes that are read in place have changed, and intensities to be measured.

    Raises:
        StorageUnavailable: a server does not answer.
        UserError: a volume cannot be read, lies elsewhere than raw, or has changed since the run began to use it.
    """
    record = source.read_record()
    now = _identities(source, in_place)
    section = _section(source.section)
    if "volumes" in record:
        _require_unchanged(source, record, now, section)
        wanted = {**record, "volumes": {**now, **record["volumes"]}}
    else:
        wanted = {**record, "section": section, "volumes": now} if now else dict(record)
    raw = source.open_raw()
    if source.intensity_setting(raw.dtype) == "percentiles" and "intensity" not in record and not _is_older(source):
        measured = intensity_range(raw, "percentiles", where=f"{source.where}.intensity")
        logger.info("%s: %s", source.name, measured.text)
        wanted["intensity"] = measured.as_json()
    if wanted != record:
        write_json(source.record, wanted)


def _is_older(source: RunSource) -> bool:
    """Whether raw was imported by a version that measured no intensities, and networks are used to that."""
    imported = _imported_identity(source.container) if source.is_converted("raw") else None
    return imported is not None and "version" not in imported and not source.record.exists()


def _identities(source: RunSource, in_place: Sequence[str]) -> dict[str, Identity]:
    """What tells whether volumes changed, for those that are read in place."""
    files = source.files()
    if files is None or not in_place:
        return {}
    raw = source.open_raw()
    found = {"raw": raw} if "raw" in in_place else {}
    for name, volume in (("labels", files.labels), ("mask", lambda _: files.mask())):
        opened = volume(raw) if name in in_place else None
        part = files.beside(raw, name, opened)
        if part is not None:
            found[name] = part.volume
    samples = files.source.samples
    return {name: _named(volume.identity(samples), volume.name) for name, volume in found.items()}


def _named(identity: Identity, name: str) -> Any:
    return {**identity, "name": name}


def _require_unchanged(source: RunSource, record: dict[str, Any], now: dict[str, Identity], section: str) -> None:
    """Refuse what differs from what the run began with.

    Raises:
        UserError: says what differs, and what to redo.
    """
    before = record["volumes"]
    for name, identity in now.items():
        if name not in before:
            continue
        old: Any = dict(before[name])
        if old.pop("name", None) != identity.get("name"):
            old["files"] = None  # a copy elsewhere has other times
        changed = what_changed(old, identity)
        if changed is not None:
            raise UserError(
                f"the source has changed since it was imported: {changed}, in the {name} {identity.get('name')};"
                f" {_what_to_redo(source, name)}",
                source.where,
            )
    gone = [name for name in before if name not in now and not source.is_converted(name)]
    if section != record.get("section") or gone:
        what = f"its {gone[0]} are gone" if gone else "its config section"
        raise UserError(
            f"the source has changed since it was imported: {what}; {_what_to_redo(source, 'raw')}", source.where
        )


def _what_to_redo(source: RunSource, name: str) -> str:
    redo = "everything made from it is redone: train again in a new run_directory"
    if name != "raw":
        redo = f"go on with the new {name} by deleting {source.record}, train again what was trained on the old ones"
        redo += " (teacher/, student/), and score again with 06_evaluate.py"
        return f"{redo}; or use a new run_directory"
    return f"use a new run_directory, or delete {source.record} to start over: {redo}"


def _tell_ranges(run: Run) -> None:
    """Say if the volume to segment has quite other intensities than those that networks are trained on."""
    volumes = run.config.volumes
    segmented = _range_of(run, volumes.segment.source)
    for name in sorted({region.source for region in volumes.train} - {volumes.segment.source}):
        trained = _range_of(run, name)
        if segmented is None or trained is None:
            continue
        difference = strong_difference(segmented, trained)
        if difference is not None:
            logger.warning(
                "%s, which is segmented, has other intensities than %s, which is trained on: %s; set"
                " volumes.sources.<name>.intensity if they were recorded alike",
                volumes.segment.source,
                name,
                difference,
            )


def _range_of(run: Run, name: str) -> IntensityRange | None:
    try:
        return run.intensity(name)
    except UserError:
        return None  # not imported yet


def describe_import(run: Run, sources: Iterable[str] | None = None) -> list[str]:
    """What every source is and what `ensure_imported` would do, one line each; data are looked at, nothing is written.

    Public data sets are not downloaded for it.

    Raises:
        UserError: see `import_source`.
    """
    lines = []
    for name, section in _chosen(run, sources):
        source = run.source(name)
        in_place = source.datasets_in_place()
        if len(in_place) == len(DATASETS):
            lines.append(describe(source, run.config.volumes))
        elif is_imported(name, section, source.container):
            lines.append(f"{describe(source, run.config.volumes)}: already imported")
        elif isinstance(section, PublicSource):
            lines.append(f"{name}: would be downloaded and imported")
        else:
            with open_kind(name, section, source.unlabelled_id).open() as opened:
                lines.append(describe(source, run.config.volumes, opened, in_place))
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
    *,
    unlabelled_id: int | None = None,
    all_datasets: bool = True,
) -> bool:
    """Write `raw`, and `labels` and `mask` if there are any, of one source into a container.

    Memory depends on the block and on the chunks of the source, never on the volume. A complete import of the same
    source is left alone, even if the source is no longer there. An unfinished one is redone.

    Args:
        name: its name in `volumes.sources`.
        source: its config section.
        container: path of the zarr container.
        import_block: block and chunk shape in voxels.
        unlabelled_id: the label that means "not annotated"; it may be negative, no other may.
        all_datasets: also those that could be read where they are.

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
            _forget(container)
            try:
                _write(name, opened, container, import_block)
            except UserError:
                _forget(container)
                raise
            zarr.open_group(str(container), mode="r+").attrs[_ATTRIBUTE] = identity
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
    opener = opener or open_kind(name, source)
    sections = [_section(source)] if "version" in imported else _earlier_sections(source)
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
    identity = {"section": _section(source), "data": opener.identity()}
    return {**identity, "version": 2} if isinstance(source, FileSource) else identity


def _section(source: Source) -> str:
    """A hash of the config section, whatever the paths are called: whether the data are others, the data say."""
    section = {key: value for key, value in dump_config(source).items() if key not in _NEUTRAL}
    for key in (*_YOUNGER, *(PATHS if isinstance(source, FileSource) else ())):
        if key in PATHS or section.get(key) is None:
            section.pop(key, None)
    return config_hash(section)


def _earlier_sections(source: Source) -> list[str]:
    """The hashes that earlier versions may have noted, with the paths as they were written then."""
    if not isinstance(source, FileSource):
        return [_section(source)]
    hashes = []
    for spelled in (str, _from_here):
        section = {key: value for key, value in dump_config(source).items() if key not in _NEUTRAL}
        for key in PATHS:
            section[key] = None if section[key] is None else spelled(section[key])
        for younger in _YOUNGER:
            if section.get(younger) is None:
                section.pop(younger, None)
        hashes.append(config_hash(section))
    return hashes


def _from_here(path: str) -> str:
    return os.path.relpath(path) if Path(path).is_absolute() else path


def _imported_identity(container: Path) -> dict[str, Any] | None:
    if not (container / ".zgroup").exists():
        return None
    identity = zarr.open_group(str(container), mode="r").attrs.get(_ATTRIBUTE)
    return None if identity is None else dict(identity)


def _forget(container: Path) -> None:
    """Remove what an earlier import left, its completion first."""
    container.parent.mkdir(parents=True, exist_ok=True)
    group = zarr.open_group(str(container), mode="a")
    if _ATTRIBUTE in group.attrs:
        del group.attrs[_ATTRIBUTE]
    for dataset in DATASETS:
        delete_volume(container, dataset)


def _has_left_overs(container: Path) -> bool:
    """Whether an import that was begun, but is not wanted any more, left something."""
    return _imported_identity(container) is None and any((container / dataset).exists() for dataset in DATASETS)


def _write(name: str, opened: OpenSource, container: Path, import_block: Sequence[int]) -> None:
    for part in (opened, *opened.others):
        volumes = _create(part, container, import_block)
        boxes = list(_boxes(part, import_block)) if volumes else []
        for box in tracked(boxes, f"import {name}", len(boxes), "blocks"):
            for dataset, data in part.reader.read(box).items():
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
